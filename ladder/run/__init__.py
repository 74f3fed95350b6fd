"""The phases of a run: training and examination, each to one durable file."""

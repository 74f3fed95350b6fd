"""Measured ratios: ladder against the floor of matrix products, the seed's literal loop, and TRL. Not installed."""

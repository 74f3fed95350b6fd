"""The exam: probes, asked of a model and answered, as plain data."""

"""Rows to tokens to batches. Knows neither Ray nor MLflow."""

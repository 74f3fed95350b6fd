"""What a run will take, from shapes and batches alone: pure arithmetic, which knows neither Ray nor MLflow."""

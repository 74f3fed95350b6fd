"""The trainer: step, optimiser, schedule, EMA, accumulation, checkpoint and resume. Knows neither Ray nor MLflow."""

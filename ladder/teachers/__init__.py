"""What a frozen teacher says about a token, and how it crosses the wire. Knows neither Ray nor MLflow."""

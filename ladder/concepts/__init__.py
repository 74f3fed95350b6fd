"""What moves inside a model: directions of concepts in its residual stream, read, compared and added."""

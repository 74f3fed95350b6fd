"""What a run will take, and whether it may begin, from shapes and batches alone."""

"""What a verb of the command does beyond one run. Highest room: it may import every other."""

"""One manifest's way from its ancestors to a verdict."""

"""Ray only: thin adapters over the rooms that know no Ray."""

"""What ladder is measured against: the floor of products, the seed's literal loop, TRL."""

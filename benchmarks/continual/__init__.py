"""A ladder of generations, one domain of facts after another: what is learned, and what is kept."""

"""Laws: what must never happen, and what became of it."""

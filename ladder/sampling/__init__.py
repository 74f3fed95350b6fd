"""The dreams that teachers write."""

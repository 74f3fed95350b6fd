"""Writing by a model: one wrapper of generate, and the dreams that teachers write."""

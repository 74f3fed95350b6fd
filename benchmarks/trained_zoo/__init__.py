"""Children of Luna whose right verdict is known, really trained and really judged."""

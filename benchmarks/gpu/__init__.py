"""What a machine with a GPU can say of ladder in four minutes: ``make gpu``."""

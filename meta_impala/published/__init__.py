"""Scores that others have published (the CSV tables), and what follows from them."""

"""Published scores of other agents (the CSV tables), and what is computed from them."""

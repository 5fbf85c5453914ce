"""One training run: the loop, its metrics and its checks."""

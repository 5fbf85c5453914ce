"""One run from its folder to its end: the loop, its metrics and its checks."""

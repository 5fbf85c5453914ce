"""Comparison of evaluated runs: human-normalised scores, statistics, reports and figures."""

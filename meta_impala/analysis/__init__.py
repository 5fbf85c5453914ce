"""From scores to statements: human-normalised scores, statistics and plots."""

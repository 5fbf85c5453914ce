"""Full games of a trained agent: how they start, are played, recorded and scored."""

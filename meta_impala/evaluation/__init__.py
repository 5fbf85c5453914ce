"""Full games of a trained agent: how they are played, begun, recorded and scored."""

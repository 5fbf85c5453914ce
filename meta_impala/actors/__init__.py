"""From environments to the trajectory queue: actors, unrolls, and the sources of blocks."""

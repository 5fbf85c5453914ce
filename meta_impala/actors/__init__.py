"""From environments to the trajectory queue: actors, their unrolls, and where the learner gets them."""

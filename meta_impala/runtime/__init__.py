"""What moves: actor threads, the trajectory queue, the learner, and the supervisor of a run."""

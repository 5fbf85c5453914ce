"""What is on disk: run folders, checkpoints, exported agents."""

"""What is inside checkpoints, and how two differ."""

"""What the reliability commands do: kill training jobs, load checkpoints under other plans, time their writing."""

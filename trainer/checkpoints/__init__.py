"""Checkpoints: what a run keeps so that it can go on, on any number of ranks under any plan."""

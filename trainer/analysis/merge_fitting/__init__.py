"""Fitting merge rules on saved predictions, and judging them without fooling oneself."""

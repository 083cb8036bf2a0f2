"""Rows of a planted teacher, whose best possible prediction is known."""

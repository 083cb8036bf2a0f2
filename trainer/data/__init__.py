"""Rows: the prepared format, where it comes from, and how a rank reads its share."""

"""A capacity study as one HTML page."""

"""Ensemble report: what a merge and its members are worth, as JSON, as tables and as a page."""

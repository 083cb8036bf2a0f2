"""Collectives between ranks, timed."""

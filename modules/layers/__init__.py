"""Layers that several members share."""

"""Predicted against measured: what capacity planning says of runs, and what they took."""

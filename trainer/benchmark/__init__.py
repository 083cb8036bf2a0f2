"""Benchmarks: trainings on public data, merged and judged, one page each."""

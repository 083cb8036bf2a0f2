"""What tools/bench_data.py measures with."""

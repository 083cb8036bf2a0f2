"""Predictions: Parquet files of row ranges, the manifest that makes them complete, and what reads them."""

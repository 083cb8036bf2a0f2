"""CSV and Parquet tables, read as a schema says."""

"""The page of a benchmark: its words, tables and charts, and the same figures for programs."""

"""What predictions are worth: intervals and comparisons over rows as written."""

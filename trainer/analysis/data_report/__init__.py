"""Statistics of a prepared folder, as JSON and as a page."""

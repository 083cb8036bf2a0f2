"""Worth: what each member adds to a merge, how members differ, and how figures grow with their number."""

"""Programs for people: each a thin main over the other folders."""

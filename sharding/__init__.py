"""Where parameters live: plans, sharding, initial weights."""

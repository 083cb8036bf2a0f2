"""From logs and tables to prepared folders."""

"""What machines an ensemble needs: predictions from a config, without the machines."""

"""What a machine reaches, measured by short runs on all its ranks: memory, products, tables, links, disk, Python."""

"""What a step costs: bytes, products and rates to seconds."""

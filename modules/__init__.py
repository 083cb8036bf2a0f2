"""What is computed: single-device models, no torch.distributed."""

"""How jobs are described to TorchX; imports torchx and the standard library only."""

"""One run over time: training, checkpoints, evaluation, scoring."""

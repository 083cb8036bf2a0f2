"""One run over time: training, checkpoints, evaluation, scoring."""

from trainer.versions import require_versions

# Here, so that every program gets the sentence before torchrec fails on import.
require_versions()

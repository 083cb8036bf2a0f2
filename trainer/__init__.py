"""One run over time: training, checkpoints, evaluation, scoring."""

import gc

from trainer.versions import require_versions

# Here, so that every program gets the sentence before torchrec fails on import.
require_versions()

# The imports that follow make a million objects, and all stay. The collector, by its default of 700 new ones, goes
# through them so often that it takes a tenth of a program's start. Steps leave it nothing to collect.
gc.set_threshold(10_000)

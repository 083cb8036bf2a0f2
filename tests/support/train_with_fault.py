"""trainer/main.py, and one rank meets a fault: torchrun ... train_with_fault.py FAULT RANK MOMENT --config ..."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.support.faults import strike
from trainer.failures import guard, leave
from trainer.main import main

if __name__ == "__main__":
    fault, rank, moment, *words = sys.argv[1:]
    strike(fault, rank=rank, moment=moment)
    leave(guard(main, words))

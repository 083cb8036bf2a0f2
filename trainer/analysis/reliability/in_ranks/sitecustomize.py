"""Has a rank write its Python stack to a file when it gets SIGUSR1; Python imports this before the program.

It lies on PYTHONPATH of the jobs that are killed on purpose, so that it is known where in their life that was.
"""

import faulthandler
import os
import signal

if "RANK" in os.environ and "CHORUS_STACKS" in os.environ:
    _path = os.path.join(os.environ["CHORUS_STACKS"], f"{os.getpid()}.txt")
    _file = open(_path + ".part", "w")  # noqa: SIM115  open for as long as the process lives
    faulthandler.register(signal.SIGUSR1, file=_file, all_threads=False)
    os.rename(_path + ".part", _path)  # a file of this name says that the signal will not end the process

"""Processes that keep the other cores busy while something is timed: a race has as many workers as cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from subprocess import DEVNULL, PIPE

#: products of matrices on one core, until its input is closed: by the process that started it, or by that one's end
WORK = """
import os, sys, threading, numpy
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
a = numpy.ones((192, 192), "float32")
print(flush=True)
while True:
    a @ a
"""


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """``count`` neighbours while the context lasts; a processor gives each core less when all of them work."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", WORK], env=alone, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is under way
        yield
    finally:
        for process in started:
            process.communicate()  # closes its input

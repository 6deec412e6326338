"""Processes that keep the other cores busy while something is timed: a race has as many workers as cores."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

#: products of matrices on one core, for a minute at most: it must end where nobody ends it
WORK = """
import time, numpy
a, end = numpy.ones((192, 192), "float32"), time.monotonic() + 60
print(flush=True)
while time.monotonic() < end:
    a @ a
"""


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many neighbours while the context lasts; a processor gives each core less when all of them work."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = [
        subprocess.Popen([sys.executable, "-c", WORK], env=alone, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is under way
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()

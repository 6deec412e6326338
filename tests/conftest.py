import contextlib
import gc
import os
import sys
import tempfile

import hypothesis
import pytest
import torch

import tests.torchvision  # noqa: F401
from thalweg._base.errors import ThalwegError
from thalweg.native import compiler
from thalweg.testing.walks import draw_anew

# no test is timed: the machines that run these are shared
hypothesis.settings.register_profile("thalweg", deadline=None, max_examples=50)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=12)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=500)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "thalweg"))

# readline writes the size of the terminal into the environment of what is started; a pipe has none
for size in ("COLUMNS", "LINES"):
    os.environ.pop(size, None)

# files of tests lie in memory where there is room: a commit of a database, or a kernel's source, waits for no disk
with contextlib.suppress(AttributeError, OSError):
    memory = os.statvfs("/dev/shm")
    if memory.f_bavail * memory.f_frsize > 2**31 and not memory.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("TMPDIR", "/dev/shm")
        tempfile.tempdir = None  # to be read again

# without a GPU, Triton's kernels run in its interpreter, which must be switched on before Triton is first imported
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # for the day that there is a GPU torch keeps each seed, with a printed traceback: most of what a short run takes
    torch.cuda.manual_seed_all = torch.xpu.manual_seed_all = torch.mtia.manual_seed_all = lambda seed: None

# fixtures of a module run before those of a test; threads that wait for one another would take all cores
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    torch.set_num_threads(1)
    draw_anew(0)


@pytest.fixture(scope="module")
def few_trials():
    """A quick race has 8 trials instead of 18: for tests of what a race does, however many there are."""
    from tests.lab.few import FEW
    from thalweg.lab.protocol import BUDGETS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUDGETS, "quick", FEW)
        yield FEW


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """The collector looks through all tests whenever it looks through everything; none of them is garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.unfreeze = lambda: None  # a benchmark's end would have it look through all of them again


def pytest_collection_modifyitems(items):
    if sys.platform == "win32":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs what Windows lacks"))


#: why there is no C compiler; empty where there is one
NO_COMPILER = compiler.available()[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Where there is no C compiler, a test that asks for the generated C by name is skipped."""
    try:
        return (yield)
    except (AssertionError, ValueError, ThalwegError) as error:
        if NO_COMPILER and NO_COMPILER in str(error):
            pytest.skip(NO_COMPILER)
        raise

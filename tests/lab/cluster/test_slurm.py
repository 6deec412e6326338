"""SLURM through submitit: its own stand-ins, and commands of the same names that make a job a process."""

import os
import stat
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

pytest.importorskip("submitit")

from submitit.core.utils import FailedJobError

from tests.lab.cluster.test_executors import plain, planned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline
from thalweg._base.errors import ThalwegError
from thalweg.lab import workers
from thalweg.lab.cluster import alone
from thalweg.lab.cluster.address import Resources
from thalweg.lab.cluster.on_slurm import RequeuedCall, SlurmCluster, _pass_on, options
from thalweg.lab.race import race
from thalweg.lab.setting import setting
from thalweg.lab.store import Store

pytestmark = [pytest.mark.posix, pytest.mark.filterwarnings("ignore")]

SBATCH = """\
#!{python}
import os, subprocess, sys
text = open(sys.argv[-1]).read()
with open({folder!r} + "/asked", "a") as asked:
    asked.write("".join(line + "\\n" for line in text.splitlines() if line.startswith("#SBATCH")))
number = str(1000 + len(os.listdir({folder!r} + "/jobs")))
open({folder!r} + "/jobs/" + number, "w").close()
variables = dict(SLURM_JOB_ID=number, SLURM_JOB_NUM_NODES="1", SLURM_NTASKS="1", SLURM_NODEID="0", SLURM_LOCALID="0",
                 SLURM_PROCID="0", SLURM_JOB_NODELIST="here")
subprocess.Popen(["bash", "-c", text], env={{**os.environ, **variables}}, stdin=subprocess.DEVNULL,
                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
print("Submitted batch job", number)
"""
SRUN = """\
#!{python}
import os, sys
words = sys.argv[1:]
command = words[words.index("--error") + 2:]
os.execvp(command[0], command)
"""
SACCT = """\
#!{python}
import sys
print("JobID|State|NodeList")
for number in (word for word in sys.argv if word.isdigit()):
    print(number + "|RUNNING|here")
"""


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """`sbatch`, `srun`, `sacct` and `scancel` on the path; the folder of what they were asked."""
    folder = tmp_path / "slurm commands"
    (folder / "jobs").mkdir(parents=True)
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT), ("scancel", "#!/bin/sh\n")):
        file = folder / name
        file.write_text(text.format(python=sys.executable, folder=str(folder)))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    return folder


@pytest.mark.parametrize(
    ("text", "found"),
    [("", {}), ("partition=gpu,time=30", {"partition": "gpu", "time": "30"}), ("gres=gpu:1", {"gres": "gpu:1"})],
)
def test_options_are_sbatchs(text, found):
    assert options(text) == found


@pytest.mark.parametrize("text", ["gpu", "time=", "=5", "a b=c", "partition=gpu;rm=x y,=z"])
def test_options_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r"^--slurm='.*: expected NAME=VALUE"):
        options(text)


def test_a_share_of_a_gpu_is_refused_as_slurm_gives_whole_ones(tmp_path, commands):
    with pytest.raises(ValueError, match=r"^--gpus=0.25: expected whole devices"):
        SlurmCluster({}, Resources(gpus=0.25), tmp_path / "jobs")


def test_without_slurm_the_error_says_where_to_start(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ThalwegError, match=r"no command srun.*login node"):
        SlurmCluster({}, folder=tmp_path / "jobs")


def test_without_submitit_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ThalwegError, match=r"thalweg\[slurm\].*pip install submitit"):
        SlurmCluster({}, folder=tmp_path / "jobs")


def test_a_race_through_submitit_gives_the_result_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "once", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr("thalweg.lab.cluster.errand._fit", lambda: True)  # `debug` calls in a thread
    monkeypatch.setattr("thalweg.lab.cluster.on_slurm.POLL_SECONDS", 0.01)
    made, stores = planned(write_small(tmp_path)), [Store(str(tmp_path / name)) for name in ("a.db", "b.db")]
    cluster = SlurmCluster({}, folder=tmp_path / "jobs", how="debug")
    result = race(made, stores[0], executor=cluster)
    cluster.close()
    monkeypatch.setattr(workers, "Pool", Inline)
    assert plain(result) == plain(race(made, stores[1]))
    for store in stores:
        store.close()


@pytest.mark.slow(reason="jobs in processes of their own, which are asked for every few seconds")
@pytest.mark.parametrize("how", ["slurm", "local"])
def test_a_job_answers_from_another_process_and_asks_for_what_was_said(tmp_path, commands, how):
    given = {"partition": "gpu", "time": "0:20:00", "qos": "low"}
    cluster = SlurmCluster(given, Resources(cpus=2), tmp_path / "jobs", how)
    try:
        assert cluster.on("cpu") == setting()
        assert cluster.submit(os.getpid).result() != os.getpid()
    finally:
        cluster.close()
    assert stat.S_IMODE((tmp_path / "jobs").stat().st_mode) == 0o700
    if how == "slurm":
        asked = set((commands / "asked").read_text().splitlines())
        for wanted in ("partition=gpu", "time=0:20:00", "qos=low", "cpus-per-task=2"):
            assert f"#SBATCH --{wanted}" in asked


def test_a_run_that_slurm_stops_is_queued_again():
    """What submitit does on a signal: it pickles what `checkpoint` gives, and has the job run once more."""
    assert RequeuedCall(divmod).checkpoint(7, 2).result() == (3, 1)


def test_a_job_that_fails_is_a_lost_run():
    class Failed:
        def result(self):
            raise FailedJobError("Job 17 has failed")

    future = Future()
    _pass_on(Failed(), future)
    with pytest.raises(FailedJobError):
        future.result(0)

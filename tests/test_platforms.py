"""Windows, as far as another system can play it: without what only POSIX has, and with the other paths and signs."""

import json
import os
import sys

import pytest

from tests.processes import python
from thalweg.bench.machine import machine
from thalweg.cli import signs
from thalweg.cli.typed import typed
from thalweg.native import compiler, disk_cache, openmp

#: what others bring is imported first, since it would look for the real Windows; then what Windows lacks goes
WITHOUT_POSIX = """
import concurrent.futures.process, importlib.abc, json, multiprocessing, os, signal, subprocess, sys, tempfile
import click, jinja2, PIL.Image, rich.console, rich.live, rich.progress, scipy.stats, sklearn.datasets, sqlalchemy
import torch

OF_OS = (
    "register_at_fork fork forkpty getuid geteuid getgid getegid getloadavg uname sched_getaffinity sysconf "
    "getpriority RTLD_NOLOAD killpg setsid nice chown mkfifo posix_spawn getpgid setpgid wait3 wait4 statvfs fchmod"
)
for name in OF_OS.split():
    if hasattr(os, name):
        delattr(os, name)
for name in "SIGKILL SIGALRM SIGHUP SIGUSR1 SIGUSR2 SIGPIPE alarm pthread_sigmask".split():
    if hasattr(signal, name):
        delattr(signal, name)
POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "curses", "syslog"}


class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in POSIX:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Lacking())
for name in POSIX:
    sys.modules.pop(name, None)
sys.platform = "win32"
"""

A_SESSION = """
import thalweg
from click.testing import CliRunner
from thalweg.bench.machine import in_words, machine
from thalweg.cli.app import app

p = torch.nn.Parameter(torch.ones(8, 8))
optimizer = thalweg.AdamW([p], lr=0.1)
for _ in range(3):
    p.grad = torch.ones(8, 8)
    optimizer.step()
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))
muon = thalweg.Muon(model, lr=0.01)
model(torch.ones(2, 4)).sum().backward()
muon.step()


def verb(*words):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


print(json.dumps({
    "moved": float(p[0, 0]), "plan": str(optimizer.plan()), "machine": in_words(machine(1)),
    "list": verb("list"), "explain": verb("explain", "muon"),
    "race": verb("race", "ravine", "--optimizers", "adamw,muon", "--steps", "20", "--seeds", "2", "--dry-run"),
    "posix": sorted(set(sys.modules) & POSIX),
}))
"""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("session"))
    given = {"LOCALAPPDATA": folder, "XDG_CACHE_HOME": "", "PYTHONUTF8": "1", "COLUMNS": "120"}
    return json.loads(python(WITHOUT_POSIX + A_SESSION, **given))


@pytest.mark.slow(reason="a process without the modules of POSIX runs four commands")
def test_without_posix_the_library_steps_by_lists_and_says_why(session):
    assert session["moved"] == pytest.approx(0.697, abs=1e-3)
    assert "backend foreach: the fastest that serves; not cpu: C kernels need Linux or macOS" in session["plan"]
    assert session["posix"] == []


@pytest.mark.slow(reason="the same process")
def test_without_posix_the_verbs_work(session):
    assert "Muon" in session["list"]
    assert "orthogonal" in session["explain"]
    assert "runs; about" in session["race"]
    assert "torch" in session["machine"]
    assert "load" not in session["machine"]


# --- one thing at a time


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")


def test_kernels_are_kept_in_the_folder_for_caches_of_the_system(windows, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "AppData"))
    assert disk_cache.folder() == tmp_path / "AppData" / "thalweg" / "Cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert disk_cache.folder() == tmp_path / "mine" / "thalweg"


def test_the_cache_works_where_files_have_no_owner_and_no_mode(windows, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delattr(os, "geteuid", raising=False)
    disk_cache.write("a", b"text")
    disk_cache.folder().chmod(0o777)  # as Windows shows every folder
    assert disk_cache.read("a") == b"text"


def test_there_is_no_compiler_and_no_shared_openmp_on_windows(windows, monkeypatch):
    compiler.forget()
    assert compiler.available() == (False, "C kernels need Linux or macOS, and this is Windows")
    with pytest.raises(LookupError, match="Windows"):
        openmp.share("GOMP_parallel")
    compiler.forget()


def test_the_machine_is_described_without_what_only_posix_tells(windows, monkeypatch):
    monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    assert machine(1)["memory_gb"] is None
    assert machine(1)["load"] is None


@pytest.mark.parametrize(
    ("platform", "line"), [("win32", 'thalweg race "my task.py"'), ("linux", "thalweg race 'my task.py'")]
)
def test_the_command_that_goes_on_is_quoted_for_the_systems_shell(monkeypatch, platform, line):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(sys, "argv", ["thalweg.exe", "race", "my task.py"])
    assert typed() == line


# --- a stream of 256 signs, as Windows gives to files and pipes

INTO_A_PIPE = """
import io, sys
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="cp1252")
from thalweg.cli import main
main()
"""


@pytest.mark.slow(reason="a command in a process of its own")
def test_a_pipe_without_greek_letters_gets_utf_8():
    text = python(INTO_A_PIPE, "explain", "sgd", "--zh", PYTHONIOENCODING=None)
    assert "γ" in text
    assert "梯度" in text


def test_a_stream_keeps_an_encoding_that_was_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    with open(tmp_path / "text", "w", encoding="cp1252") as stream:
        signs.let_through(stream)
        stream.write("β × 2")
    assert (tmp_path / "text").read_bytes() == b"? \xd7 2"


def test_a_stream_that_takes_every_sign_is_left_alone(tmp_path):
    with open(tmp_path / "text", "w", encoding="utf-8") as stream:
        signs.let_through(stream)
        assert (stream.encoding, stream.errors) == ("utf-8", "strict")
    signs.let_through(None)  # as in a process without a console

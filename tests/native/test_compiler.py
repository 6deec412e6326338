"""From C source to a loaded library: what it computes, which OpenMP runs it, what is cached, and what can go wrong."""

import ctypes
import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import thalweg
from thalweg._base.errors import ThalwegError
from thalweg.native import compiler, disk_cache, openmp

REAL = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(REAL is None, reason="there is no C compiler here")
pytestmark = pytest.mark.posix

ANSWER = "int answer(void) { return 42; }"
THREADS = """
#ifdef _OPENMP
int omp_get_num_threads(void);
#endif
int threads(int n) {
    int seen = 1;
#ifdef _OPENMP
    #pragma omp parallel num_threads(n)
    #pragma omp single
    seen = omp_get_num_threads();
#endif
    return seen;
}
"""
#: another process: a parallel region of torch, one of ours, then what it saw
PROCESS = f"""
import json, os, torch
torch.set_num_threads(2)
torch.ones(100_000).exp().sum()
from thalweg.native import compiler
found = compiler.library({THREADS!r})
threads = found.cdll.threads(2)
mapped = set()
if os.path.exists("/proc/self/maps"):
    paths = [line.split()[-1] for line in open("/proc/self/maps") if "/" in line]
    mapped = {{path for path in paths if os.path.basename(path).startswith(("libgomp", "libomp", "libiomp"))}}
print(json.dumps([found.parallel, threads, sorted(mapped), found.note]))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and no memory of the others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    compiler.forget()
    yield tmp_path / "cache" / "thalweg"
    compiler.forget()


def script(path: Path, body: str) -> Path:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The real compiler behind a script that counts; gives the count."""
    log = tmp_path / "calls"
    monkeypatch.setenv("CC", str(script(tmp_path / "counted", f'echo x >> "{log}"\nexec "{REAL}" "$@"')))
    return lambda: len(log.read_text().split()) if log.exists() else 0


def refusing(path: Path, *flags: str) -> Path:
    """The real compiler behind a script that does not know some flags."""
    cases = "|".join(flags)
    refusal = f"""case "$word" in {cases}) echo "error: unrecognized option '$word'" >&2; exit 1;; esac"""
    return script(path, f'for word in "$@"; do {refusal}; done\nexec "{REAL}" "$@"')


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def start() -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> list:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


# --- what a library computes


@needs_compiler
def test_a_source_becomes_functions():
    found = compiler.library(ANSWER)
    assert found.cdll.answer() == 42
    assert compiler.library(ANSWER) is found
    assert compiler.library(ANSWER.replace("42", "43")).cdll.answer() == 43


@needs_compiler
def test_nan_inf_and_signed_zero_keep_their_meaning():
    source = """
    int differs(double x) { return x != x; }
    double times_zero(double x) { return x * 0.0; }
    double minus_itself(double x) { return x - x; }
    double plus_zero(double x) { return x + 0.0; }
    int count_nan(const double *x, long n) { int c = 0; for (long i = 0; i < n; i++) c += x[i] != x[i]; return c; }
    int count_inf(const double *x, long n) { int c = 0; for (long i = 0; i < n; i++) c += x[i] == 1.0 / 0.0; return c; }
    """
    lib = compiler.library(source).cdll
    for function in (lib.times_zero, lib.minus_itself, lib.plus_zero):
        function.restype, function.argtypes = ctypes.c_double, (ctypes.c_double,)
    lib.differs.argtypes = (ctypes.c_double,)
    assert lib.differs(math.nan)
    assert not lib.differs(math.inf)
    assert math.isnan(lib.times_zero(math.inf))
    assert math.isnan(lib.minus_itself(math.inf))
    assert lib.plus_zero(math.inf) == math.inf
    assert math.copysign(1, lib.plus_zero(-0.0)) == 1
    values = [0.0, math.nan, math.inf, -math.inf] * 50  # long enough for vector instructions
    array, n = (ctypes.c_double * len(values))(*values), ctypes.c_long(len(values))
    assert lib.count_nan(array, n) == 50
    assert lib.count_inf(array, n) == 50


# --- OpenMP


@needs_compiler
@pytest.mark.slow(reason="three processes that import torch and compile")
def test_processes_that_build_at_once_share_torchs_runtime_and_a_third_compiles_nothing(cache, calls):
    first, second = start(), start()
    outcomes = [outcome(first), outcome(second)]
    built = calls()
    assert built
    outcomes.append(outcome(start()))
    assert calls() == built
    for parallel, threads, mapped, note in outcomes:
        assert len(mapped) <= 1, "a second OpenMP runtime fights the first for the cores"
        assert threads == (2 if parallel else 1), note
        assert ("OpenMP from torch's" in note) == parallel
    # one library, its source, what is known of the compiler; nothing left over
    assert sorted(path.suffix for path in cache.iterdir()) == [".c", ".json", ".so"]


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="gcc and libgomp are the pair on Linux")
def test_gcc_runs_in_parallel_and_names_no_runtime(cache):
    found = compiler.library(THREADS)
    if "gcc" not in found.note:
        pytest.skip(found.note)
    assert found.parallel, found.note
    assert found.cdll.threads(2) == 2
    assert b"libgomp" not in only(cache, "*.so").read_bytes()


@needs_compiler
def test_a_compiler_without_openmp_gives_one_thread_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CC", str(refusing(tmp_path / "plain", "-fopenmp")))
    found = compiler.library(THREADS)
    assert (found.parallel, found.cdll.threads(2)) == (False, 1)
    assert found.note.endswith("one thread: it has no OpenMP")


@needs_compiler
def test_a_runtime_that_does_not_fit_gives_one_thread_and_says_so(monkeypatch):
    real = openmp.share
    monkeypatch.setattr(openmp, "share", lambda entry: real("no_such_function"))
    found = compiler.library(THREADS)
    assert (found.parallel, found.cdll.threads(2)) == (False, 1)
    assert "no OpenMP runtime with no_such_function" in found.note


@pytest.mark.parametrize("used_by_torch", [True, False])
def test_a_runtime_that_stands_before_torchs_is_taken_where_torch_uses_it_too(monkeypatch, used_by_torch):
    monkeypatch.setattr(openmp, "ctypes", SimpleNamespace(CDLL=lambda name, mode=0: name, RTLD_GLOBAL=0))
    monkeypatch.setattr(openmp, "_file", lambda library, entry: "/torch/libgomp.so" if library else "/lib/libother.so")
    monkeypatch.setattr(openmp, "_is_torchs", lambda library: used_by_torch)
    if used_by_torch:
        assert openmp.share("GOMP_parallel") == "libother.so"
    else:
        with pytest.raises(LookupError, match=r"/lib/libother\.so hides torch's OpenMP runtime /torch/libgomp\.so"):
            openmp.share("GOMP_parallel")
    monkeypatch.setattr(openmp, "_file", lambda library, entry: "/torch/libgomp.so")
    assert openmp.share("GOMP_parallel") == "libgomp.so"


@needs_compiler
@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ("#error half installed", "half installed"),
        ("int missing(void); int call(void) { return missing(); }", "missing"),
    ],
)
def test_what_fails_with_openmp_only_runs_on_one_thread(broken, complaint):
    found = compiler.library(f"{ANSWER}\n#ifdef _OPENMP\n{broken}\n#endif\n")
    assert found.cdll.answer() == 42
    assert not found.parallel
    if "gcc" in found.note:
        assert complaint in found.note


# --- the cache


@needs_compiler
def test_the_source_lies_beside_its_library_in_a_private_folder(cache):
    compiler.library(ANSWER)
    assert only(cache, "*.c").read_text().startswith(ANSWER)
    assert only(cache, "*.c").stem == only(cache, "*.so").stem
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


@needs_compiler
def test_threads_compile_once(calls):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(compiler.library, [ANSWER] * 8))
    assert all(each is found[0] for each in found)
    once = calls()
    compiler.forget()
    compiler.library(ANSWER)
    assert calls() == once, "the cache was not used"


def test_several_sources_compile_side_by_side(monkeypatch):
    both_are_here = threading.Barrier(2, timeout=60)

    def compiled(source):
        both_are_here.wait()
        return source

    monkeypatch.setattr(compiler, "_library", compiled)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(compiler.library, ["one", "two"])) == ["one", "two"]
    compiler.forget()


@needs_compiler
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "swapped", "no source", "memo"])
def test_damage_is_mended_silently(cache, calls, damage):
    compiler.library(ANSWER)
    built, library, listing, memo = calls(), only(cache, "*.so"), only(cache, "*.c"), only(cache, "*.json")
    good = library.read_bytes()

    def replace(path: Path, data: bytes) -> None:
        path.unlink()  # this process has it mapped
        path.write_bytes(data)

    match damage:
        case "truncated":
            replace(library, good[: len(good) // 2])
        case "flipped":
            replace(library, good[:4000] + bytes([good[4000] ^ 255]) + good[4001:])
        case "empty":
            replace(library, b"")
        case "swapped":
            replace(listing, listing.read_bytes().replace(b"42", b"43"))
        case "no source":
            listing.unlink()
        case "memo":
            replace(memo, b'{"name": ')
    compiler.forget()
    assert compiler.library(ANSWER).cdll.answer() == 42
    assert calls() > built
    assert library.read_bytes() == good
    assert listing.read_text().startswith(ANSWER)
    json.loads(memo.read_text())


@needs_compiler
def test_without_a_cache_each_process_compiles_for_itself_and_is_told_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.warns(UserWarning, match=r"below/thalweg cannot keep.*\$XDG_CACHE_HOME") as told:
        found = [compiler.library(ANSWER), compiler.library(THREADS)]
    assert found[0].cdll.answer() == 42
    assert found[1].cdll.threads(1) == 1
    assert len(told) == 1
    assert not list(tmp_path.glob("thalweg-*"))


@needs_compiler
@pytest.mark.parametrize("stranger", ["owner", "writable"])
def test_nothing_is_loaded_from_a_folder_that_others_can_write(cache, calls, monkeypatch, stranger):
    compiler.library(ANSWER)
    built = calls()
    compiler.forget()
    if stranger == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    else:
        cache.chmod(0o777)
    with pytest.warns(UserWarning, match="only you can write"):
        assert compiler.library(ANSWER).cdll.answer() == 42
    assert calls() > built


def test_a_full_disk_leaves_no_half_file(cache, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    disk_cache.write("kept", b"old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        disk_cache.write("kept", b"new")
    assert disk_cache.read("kept") == b"old"
    assert [path.name for path in cache.iterdir()] == ["kept"]


@needs_compiler
def test_a_forked_child_does_not_wait_for_a_lock_that_nobody_holds():
    with compiler._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's threads is what is tested
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(0 if compiler.library(ANSWER).cdll.answer() == 42 else 1)
    assert os.waitpid(child, 0)[1] == 0


# --- compilers


def test_no_compiler_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "")
    there, reason = compiler.available()
    assert not there
    assert "install gcc or clang, or set $CC" in reason
    with pytest.raises(compiler.CompilerError, match=r"no C compiler; install gcc or clang, or set \$CC") as caught:
        compiler.library(ANSWER)
    assert isinstance(caught.value, ThalwegError)


@pytest.mark.parametrize(("cc", "said"), [("no-such-compiler -O2", "names no program"), ("'gcc", "as a command")])
def test_a_wrong_cc_is_named(monkeypatch, cc, said):
    monkeypatch.setenv("CC", cc)
    there, reason = compiler.available()
    assert not there
    assert said in reason
    assert cc in reason


@needs_compiler
def test_availability_follows_the_environment(monkeypatch, calls):
    assert compiler.available() == (True, "")
    assert calls() == 0
    monkeypatch.setenv("CC", "no-such-compiler")
    assert not compiler.available()[0]
    monkeypatch.delenv("CC")
    assert compiler.available()[0]


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    complaint = "for i in $(seq 40); do echo line $i >&2; done; exit 3"
    path = script(tmp_path / "broken", complaint)
    monkeypatch.setenv("CC", str(path))
    with pytest.raises(compiler.CompilerError, match="exit code 3") as caught:
        compiler.library(ANSWER)
    assert (caught.value.code, caught.value.command[0]) == (3, str(path))
    assert "line 1\n" in str(caught.value)
    assert "line 40" not in str(caught.value)
    assert "line 40" in caught.value.stderr


def test_a_compiler_that_fails_in_silence(monkeypatch):
    monkeypatch.setenv("CC", shutil.which("false") or "/bin/false")
    with pytest.raises(compiler.CompilerError, match=r"exit code 1: \S*false"):
        compiler.library(ANSWER)


def test_auto_goes_on_without_a_compiler_that_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(script(tmp_path / "broken", "echo no libc >&2; exit 1")))
    p, q = (torch.nn.Parameter(torch.ones(3, 7)) for _ in range(2))
    p.grad, q.grad = torch.ones(3, 7), torch.ones(3, 7)
    optimizer = thalweg.Yogi([p])
    with pytest.warns(match="no libc"):
        optimizer.step()
    thalweg.Yogi([q], backend="foreach").step()
    assert torch.equal(p, q)
    assert "backend: foreach" in repr(optimizer)
    assert "no libc" in optimizer.plan().parts[0].why
    with pytest.raises(compiler.CompilerError, match="no libc"):
        thalweg.Yogi([q], backend="cpu").step()


def test_a_compiler_that_hangs_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "TIMEOUT", 0.1)
    monkeypatch.setenv("CC", str(script(tmp_path / "slow", "exec sleep 60")))
    with pytest.raises(compiler.CompilerError, match=r"no answer within 0.1 s"):
        compiler.library(ANSWER)


@needs_compiler
def test_an_error_in_the_source_is_shown_with_its_line():
    with pytest.raises(compiler.CompilerError, match=r"kernel\.c:2:"):
        compiler.library("int fine;\nint broken = ;\n")


@needs_compiler
def test_cc_may_hold_flags(monkeypatch):
    monkeypatch.setenv("CC", f"{REAL} -DANSWER=7 -fopenmp")
    assert compiler.library("int answer(void) { return ANSWER; }").cdll.answer() == 7
    monkeypatch.setenv("CC", f"{REAL} -DANSWER=8")
    compiler.forget()
    assert compiler.library("int answer(void) { return ANSWER; }").cdll.answer() == 8


@needs_compiler
@pytest.mark.parametrize(
    "unknown", [("-mprefer-vector-width=*",), ("-mprefer-vector-width=*", "-march=*", "-mcpu=*")], ids=len
)
def test_flags_that_the_compiler_refuses_are_left_out(cache, tmp_path, monkeypatch, unknown):
    monkeypatch.setenv("CC", str(refusing(tmp_path / "old", *unknown)))
    assert compiler.library(ANSWER).cdll.answer() == 42
    built = only(cache, "*.c").read_text()
    assert ("-march=native" in built) == (len(unknown) == 1)
    assert "-mprefer-vector-width" not in built
    assert "-O3" in built


@needs_compiler
def test_a_new_compiler_compiles_anew(tmp_path, cache, monkeypatch):
    path = refusing(tmp_path / "compiler", "-never")
    monkeypatch.setenv("CC", str(path))
    compiler.library(ANSWER)
    script(path, f'exec "{REAL}" -D__UPGRADED__ "$@"')
    compiler.forget()
    compiler.library(ANSWER)
    assert len(list(cache.glob("*.so"))) == 2


@needs_compiler
def test_sources_compile_in_threads_that_start_together():
    barrier, answers = threading.Barrier(3), []

    def build(n: int) -> None:
        barrier.wait()
        answers.append(compiler.library(ANSWER.replace("42", str(n))).cdll.answer())

    threads = [threading.Thread(target=build, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [0, 1, 2]

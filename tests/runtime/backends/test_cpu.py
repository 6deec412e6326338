"""The generated C: what it reads like, and what runs it."""

import difflib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import thalweg
from tests.cases import CASES, distance, parameters, walk
from tests.fixtures import needs_compiler
from thalweg.ir.trace import kept_states, specialize
from thalweg.native import compiler
from thalweg.runtime.backends import cpu
from thalweg.runtime.backends.c_formats import PRELUDE
from thalweg.runtime.formats import name_of
from thalweg.runtime.state import formats_of

GOLDEN = Path(__file__).parents[2] / "golden"
SOURCES = {
    "sgd_momentum_float32": lambda ps: thalweg.SGD(ps, lr=0.1, momentum=0.9),
    "adamw_float32": lambda ps: thalweg.AdamW(ps),
    "adamw_clip_global_norm_float32": lambda ps: thalweg.AdamW(ps, clip_global_norm=1.0),
    "adamw_int8": lambda ps: thalweg.AdamW(ps, state_dtype="int8"),
    "lamb_float32": lambda ps: thalweg.LAMB(ps),
    "muon_float32": lambda ps: thalweg.Muon(ps),
    "sgd_centralize_bfloat16_split16": lambda ps: thalweg.SGD(
        [p.bfloat16() for p in ps], master="split16", centralize=True
    ),
}


def source(optimizer):
    """The C of an optimizer's first group, without what all kernels begin with."""
    (group,) = optimizer.param_groups
    specs = kept_states(type(optimizer), group)
    p = group["params"][0]
    formats = formats_of(p.dtype, specs, optimizer.storage)
    exact = all(f.exact for name, f in formats.items() if name != "p" or f.beside)
    written = cpu.kernel(specialize(type(optimizer), group), tuple(formats.items()), name_of(p.dtype), exact)
    return written.source.replace(PRELUDE, "/* … what all kernels begin with … */\n")


@pytest.mark.parametrize("kernel", SOURCES)
def test_the_c_is_what_it_was(kernel):
    """A change of the writer shows here as a difference of what it writes. ``THALWEG_GOLDEN=write`` accepts it."""
    text = source(SOURCES[kernel]([torch.zeros(4, 4)]))
    path = GOLDEN / f"{kernel}.c"
    if os.environ.get("THALWEG_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    before = path.read_text(encoding="utf-8")
    diff = "\n".join(difflib.unified_diff(before.splitlines(), text.splitlines(), "kept", "now", lineterm=""))
    assert not diff, diff


@needs_compiler
@pytest.mark.parametrize("make", [
    lambda ps: thalweg.AdamW(ps, lr=0.01), lambda ps: thalweg.LAMB(ps, lr=0.01, clip_global_norm=0.5),
    lambda ps: thalweg.AdamW(ps, lr=0.01, state_dtype="int8"),
    lambda ps: thalweg.SGD(ps, lr=0.01, centralize=True, clip_adaptive=0.1),
])  # fmt: skip
def test_the_number_of_threads_changes_no_bit(make):
    ends = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        params = parameters([(300, 210), (70001,), (3,)], torch.float32)
        walk(make(params), params, 3)
        ends.append(params)
    assert distance(ends[0], ends[1]) == distance(ends[0], ends[2]) == 0


@needs_compiler
def test_one_kernel_serves_any_number_of_tensors(monkeypatch):
    built = []
    monkeypatch.setattr(compiler, "library", lambda text, real=compiler.library: built.append(text) or real(text))
    for count in (1, 7, 200):
        params = parameters([(5,)] * count, torch.float32)
        walk(thalweg.AdamW(params, lr=0.1), params, 2)
    assert len({text for text in built if "AdamW" in text}) == 1


def test_without_a_compiler_auto_takes_foreach_and_says_why(monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("PATH", "/nowhere")
    compiler.forget()
    try:
        params = parameters([(3,)])
        optimizer = thalweg.AdamW(params)
        assert "backend: foreach" in repr(optimizer)
        assert "not cpu: " in repr(optimizer)
        walk(optimizer, params, 1)
        with pytest.raises(ValueError, match="backend='cpu'"):
            walk(thalweg.AdamW(params, backend="cpu"), params, 1)
    finally:
        monkeypatch.undo()
        compiler.forget()


@needs_compiler
def test_auto_goes_on_without_a_compiler_that_fails_and_says_so_once(monkeypatch):
    def fails(text):
        raise compiler.CompilerError("it has no libc")

    monkeypatch.setattr(compiler, "library", fails)
    ours, theirs = parameters([(4, 3), (3,)]), parameters([(4, 3), (3,)])
    optimizer = thalweg.Adafactor(ours)  # two kinds of tensors, which are compiled for side by side
    with pytest.warns(UserWarning, match="a slower backend runs, since the compiler failed: it has no libc") as heard:
        walk(optimizer, ours, 3)
    assert len(heard) == 1
    assert "backend: foreach" in repr(optimizer)
    walk(thalweg.Adafactor(theirs, backend="eager"), theirs, 3)
    assert distance(ours, theirs) < 1e-12
    with pytest.raises(compiler.CompilerError, match="no libc"):
        walk(thalweg.Adafactor(ours, backend="cpu"), ours, 1)


@pytest.mark.parametrize(("flags", "dtypes"), [
    ("", [torch.float32, torch.float16]),
    ("-U__F16C__ -D_Float16=unknown_type", [torch.float32]),
], ids=["other words", "none"])  # fmt: skip
@needs_compiler
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors' compilers know it")
def test_a_compiler_that_does_not_know_float16_compiles_the_rest(monkeypatch, tmp_path, flags, dtypes):
    """As gcc before 12 and clang before 15 on x86: Ubuntu 22.04 and Debian 12 have them."""
    cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    monkeypatch.setenv("CC", f"{cc} -U__FLT16_MANT_DIG__ {flags}")
    monkeypatch.setattr(compiler, "_libraries", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for dtype in dtypes:
        ours, theirs = parameters([(40, 50), (7,)], dtype), parameters([(40, 50), (7,)], dtype)
        walk(thalweg.AdamW(ours, backend="cpu"), ours, 2)
        walk(thalweg.AdamW(theirs, backend="eager"), theirs, 2)
        assert distance(ours, theirs) < 16 * torch.finfo(dtype).eps


STEP = """
import re, torch, thalweg
torch.set_num_threads(2)
params = [torch.nn.Parameter(torch.randn(300, 300)) for _ in range(4)]
for p in params: p.grad = torch.randn_like(p)
a = torch.randn(500, 500) @ torch.randn(500, 500)  # torch's own threads run
thalweg.AdamW(params, backend="cpu").step()
loaded = {line.split()[-1] for line in open("/proc/self/maps") if re.search(r"lib(gomp|iomp5|omp)[-.\\w]*\\.so", line)}
assert len(loaded) == 1, loaded
"""


@pytest.mark.slow(reason="a process that compiles")
@needs_compiler
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_single_openmp_runtime_is_mapped():
    subprocess.run([sys.executable, "-c", STEP], check=True, timeout=120)


def _is_gcc():
    found = shutil.which("gcc")
    return (
        found
        and "Free Software Foundation" in subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    )


def _operations(text):
    """What the passes of a kernel call, and its operators."""
    return set(re.findall(r"\w+(?=\()|[^\w\s()\[\];,.]+", text[text.index("/* pass 1") :]))


def _few(sources):
    """Some of the kernels, which together hold every operation of all."""
    left = {text: _operations(text) for text in sources}
    while any(left.values()):
        best = max(left, key=lambda text: len(left[text]))
        yield best
        left = {text: some - left[best] for text, some in left.items()}


@pytest.mark.skipif(not _is_gcc(), reason="asks gcc what it vectorized")
def test_the_loops_of_rules_are_vectorized_whatever_operation_is_in_them(tmp_path):
    """A branch or a call in one operation would make a rule ten times slower, and nothing else would show it."""
    rules = [c for c in CASES if c.name != "Muon"]
    sources = [source(c.optimizer([torch.nn.Parameter(torch.zeros(4, 4))], lr=c.lr)) for c in rules]
    chosen = list(_few(sources))
    assert 3 < len(chosen) < len(rules)
    for text in chosen:
        _check_vectorized(text, tmp_path)


def _check_vectorized(text, tmp_path):
    file = tmp_path / "kernel.c"
    file.write_text(text.replace("/* … what all kernels begin with … */\n", PRELUDE), encoding="utf-8")
    flags = [*compiler.FLAGS, "-fopenmp", "-march=native", "-fopt-info-vec-optimized"]
    done = subprocess.run(["gcc", *flags, "-c", file, "-o", tmp_path / "kernel.o"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = file.read_text(encoding="utf-8").splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("/* pass 1"))
    loops = {i + 1 for i, line in enumerate(lines) if i > begin and "for (int64_t i = from" in line}
    vectorized = {int(line.split(":")[1]) for line in done.stderr.splitlines() if "loop vectorized" in line}
    assert all(any(abs(loop - at) <= 2 for at in vectorized) for loop in loops), text

"""Products of which one half is computed: in Triton's interpreter, or on a GPU where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ir.test_ops import rule_of
from thalweg.linalg import halve_products, halves, newton_schulz

triton = pytest.importorskip("triton")
half = pytest.importorskip("thalweg.linalg.halves_triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: one tile and a part of one, several with a rest, an empty one, and batches
SHAPES = [(5, 9), (40, 17), (33, 70), (0, 4), (3, 20, 8)]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}

pytestmark = pytest.mark.skipif(
    DEVICE == "cpu" and not isinstance(triton.jit(rule_of), triton.runtime.interpreter.InterpretedFunction),
    reason="Triton was imported before its interpreter was switched on",
)


def close(found, expected, dtype):
    scale = expected.abs().max().item() if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=CLOSE[dtype] * scale)
    assert torch.equal(found, found.mT)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gram_matrix_of_which_one_half_is_computed(shape, dtype):
    X = torch.randn(shape).to(DEVICE, dtype)
    close(half.gram(X, tile=16), X.double() @ X.double().mT, dtype)
    turned = X.mT.contiguous().mT
    close(half.gram(turned, tile=16), X.double() @ X.double().mT, dtype)


@pytest.mark.parametrize("dtype", CLOSE)
def test_a_sum_of_a_symmetric_product(dtype):
    for shape in ((20, 20), (2, 33, 33)):
        A = torch.randn(shape)
        A = (A + A.mT).to(DEVICE, dtype)
        expected = 0.5 * A.double() - 0.25 * (A.double() @ A.double())
        close(half.product(A, A, A, 0.5, -0.25, tile=16), expected, dtype)


def test_tiles_are_numbered_row_by_row():
    """A product of ones, whose tiles are so many that the root must not be off by one."""
    assert torch.equal(half.gram(torch.ones(16 * 11, 1, device=DEVICE), tile=16), torch.ones(176, 176, device=DEVICE))


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (2, 20, 20)])
def test_newton_schulz_by_halves(shape, monkeypatch):
    G = torch.randn(shape, device=DEVICE)
    expected = newton_schulz(G, dtype=torch.float32)
    calls = []
    monkeypatch.setattr(halves, "kernels", lambda X: calls.append(X.shape) or half)
    torch.testing.assert_close(newton_schulz(G, dtype=torch.float32), expected, rtol=0, atol=1e-4)
    assert calls


def test_it_is_off_until_it_is_asked_for():
    X = torch.randn(4, 4, device=DEVICE)
    assert halves.kernels(X) is None
    halve_products()
    try:
        assert (halves.kernels(X) is half) == X.is_cuda
    finally:
        halve_products(False)
    assert halves.kernels(X) is None
    with pytest.raises(ValueError, match="on='yes': expected True or False"):
        halve_products("yes")


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from thalweg.linalg.halves_triton import half_product
kinds = {name: "i32" for name in half_product.arg_names}
kinds |= {**dict.fromkeys(("a", "b", "c", "out"), "*bf16"), "beta": "fp32", "alpha": "fp32"}
kinds |= dict.fromkeys(("ADDS", "WIDE", "TILE", "DEPTH"), "constexpr")
for target in (GPUTarget("cuda", 80, 32), GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
    source = ASTSource(half_product, kinds, constexprs={"ADDS": True, "WIDE": False, "TILE": 128, "DEPTH": 64})
    code = triton.compile(source, target=target, options={"num_warps": 8}).asm
    print(target.arch, "mma" in code.get("ptx", "") or "mfma" in code.get("amdgcn", ""))
"""


@pytest.mark.slow(reason="Triton's compiler for three processors, in a process without its interpreter")
def test_it_compiles_for_gpus(tmp_path):
    """Down to machine code, with the instructions that multiply tiles."""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["80 True", "90 True", "gfx942 True"]

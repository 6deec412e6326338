"""The formats of `runtime/formats.py`, spelled in C; their functions stand in `prelude.h`, with which kernels begin."""

from __future__ import annotations

from importlib.resources import files

from thalweg.runtime.formats import BLOCK, Format

C_TYPE = {
    "float64": "double",
    "float32": "float",
    "bfloat16": "uint16_t",
    "float16": "float16",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "split8": "uint16_t",
    "split16": "uint16_t",
    "product": "T",
}

#: of what lies beside it
BESIDE = {"int8": "float", "uint8": "float", "split8": "int8_t", "split16": "int16_t", "product": "T"}


def pointer(name: str) -> str:
    """Where a kind of data lies: a state may have any name, also one that means something else in C."""
    return f"at_{name}"


def _kept(f: Format, name: str) -> list[str]:
    """The C expressions for where a stretch of these data lies, and for what is kept beside it."""
    beside = [f"{pointer(name)}_{f.beside} + at" + (f" / {BLOCK}" if f.blocked else "")] if f.beside else []
    return [f"{pointer(name)} + at", *beside]


def begin(name: str) -> str:
    """The place in a product from which a loop reads on."""
    return f"product({pointer(name)}, {pointer(name)}_columns, from, width_{name}, area_{name})"


def decode(f: Format, name: str) -> str:
    """The statement that makes numbers, ``old_…``, of a stretch of n."""
    if f.name == "product":
        return f"decode_product(old_{name}, n, &product_{name});"
    return f"decode_{f.name}({', '.join([f'old_{name}', 'n', *_kept(f, name)])});"


def encode(f: Format, name: str, slot: int) -> str:
    """The statement that lays down a stretch of n numbers, ``new_…``; of every 32 random bits two slots take half."""
    random = [f"bits_{slot // 2}", "16" if slot % 2 else "0"] if f.stochastic else []
    how = "_at_random" if f.stochastic else ""
    return f"encode_{f.name}{how}({', '.join([f'new_{name}', 'n', *_kept(f, name), *random])});"


#: the text that comes before the functions of a kernel
PRELUDE = files("thalweg.runtime.backends").joinpath("prelude.h").read_text(encoding="utf-8")

"""The formats of `engine/formats.py`, spelled in C; their functions stand in `prelude.h`, with which kernels begin."""

from __future__ import annotations

from importlib.resources import files

from thalweg.engine.formats import Format

C_TYPE = {
    "float64": "double",
    "float32": "float",
    "bfloat16": "uint16_t",
    "float16": "_Float16",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "split8": "uint16_t",
    "split16": "uint16_t",
}


def load(f: Format, name: str) -> str:
    """The number that lies at place ``i``."""
    return {
        "bfloat16": f"from_bfloat16({name}[i])",
        "int8": f"old_{name}[i - from]",
        "uint8": f"old_{name}[i - from]",
        "split8": f"join({name}[i], {name}_bits[i] * 256)",
        "split16": f"join({name}[i], {name}_bits[i])",
    }.get(f.name, f"{name}[i]")


def store(f: Format, name: str, value: str) -> str:
    """The statement that lays a number at place ``i``; blocks are encoded together, by ``encode_int8`` and its twin."""
    if f.stochastic:
        return f"{name}[i] = {f.name}_at_random({value}, random_{name});"
    return {
        "bfloat16": f"{name}[i] = to_bfloat16({value});",
        "split8": f"split8({value}, &{name}[i], &{name}_bits[i]);",
        "split16": f"split16({value}, &{name}[i], &{name}_bits[i]);",
    }.get(f.name, f"{name}[i] = {value};")


#: the text that comes before the functions of a kernel
PRELUDE = files("thalweg.engine.backends").joinpath("prelude.h").read_text(encoding="utf-8")

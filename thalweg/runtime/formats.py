"""How numbers lie in memory: what the engine loads from and stores to, apart from any rule.

A rule computes in float32 (in float64 where the parameter is). Around it, a parameter or a state may be kept in fewer
bits. Each format says here how torch decodes and encodes it; the compiled backends spell the same in `backends/cpu.py`
and `backends/triton.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from thalweg.ir import counter_rng
from thalweg.runtime.tensors import is_dense

#: elements that share one scale in the 8-bit formats
BLOCK = 128

#: a code of 8 bits is found with 16 bits behind the point, to which random bits are added
POINT = 1 << 16

PLAIN = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Format:
    """One way to keep a tensor.

    Attributes:
        name: ``float64``, ``float32``, ``bfloat16``, ``float16``; ``int8`` (z (1 + z²) / 2 times a float32 scale for
            each block of 128, z the code over 127) and ``uint8`` (the square of the scale times the code over 255);
            ``split8`` and ``split16``, bfloat16 with the next 8 or 16 bits of a float32 beside it; ``product``, what
            a leaf gives as one (`ops.Product`): its numbers of rows, those of columns beside them.
        stochastic: round up or down at random, so that the mean is right.
        bytes: a parameter.
    """

    name: str
    stochastic: bool = False

    @property
    def bytes(self) -> float:
        """Bytes an element."""
        return {"int8": 1 + 4 / BLOCK, "uint8": 1 + 4 / BLOCK, "split8": 3.0, "split16": 4.0}.get(self.name) or float(
            PLAIN[self.name].itemsize
        )

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensor that stores it."""
        return PLAIN.get(self.name) or {"int8": torch.int8, "uint8": torch.uint8}.get(self.name, torch.bfloat16)

    @cached_property
    def beside(self) -> str | None:
        """Suffix of the state's name under which a second tensor lies, if there is one."""
        return {"int8": "scale", "uint8": "scale", "split8": "bits", "split16": "bits", "product": "columns"}.get(
            self.name
        )

    @property
    def plain(self) -> bool:
        """Whether it is the dtype of computation, so that nothing is decoded."""
        return self.name in ("float32", "float64")

    @property
    def exact(self) -> bool:
        """Whether it stores float32 (float64) without rounding."""
        return self.name in ("float64", "float32", "split16")

    @cached_property
    def blocked(self) -> bool:
        """Whether elements are encoded together."""
        return self.name in ("int8", "uint8")

    def new_beside(self, like: Tensor) -> Tensor | None:
        """The second tensor for one of this shape, all zeros."""
        if self.blocked:
            return torch.zeros(-(-like.numel() // BLOCK), dtype=torch.float32, device=like.device)
        if self.beside:
            dtype = torch.int8 if self.name == "split8" else torch.int16
            return torch.zeros_like(like, dtype=dtype, memory_format=torch.preserve_format)
        return None

    def decode(self, kept: Tensor, beside: Tensor | None) -> Tensor:
        """The numbers, in float32 or float64, in the order and strides of ``kept``."""
        if self.blocked:
            assert beside is not None
            codes = _storage_order(kept).float()
            scales = beside.repeat_interleave(BLOCK)[: codes.numel()]
            z = codes * (1 / 255 if self.name == "uint8" else 1 / 127)
            numbers = (z * scales).square() if self.name == "uint8" else z * (0.5 + 0.5 * z * z) * scales
            return _like(numbers, kept)
        if self.beside:
            assert beside is not None
            shift = 8 if self.name == "split8" else 0
            bits = (kept.view(torch.int16).to(torch.int32) << 16) + (beside.to(torch.int32) << shift)
            return bits.view(torch.float32)
        return kept if kept.dtype in (torch.float32, torch.float64) else kept.float()

    def encode(self, numbers: Tensor, kept: Tensor, beside: Tensor | None, draw: counter_rng.Draw) -> None:
        """Write ``numbers`` (strides as ``kept``) into both tensors; ``draw`` gives 16 random bits an element."""
        if self.blocked:
            assert beside is not None
            self._encode_blocks(numbers, kept, beside, draw)
        elif self.beside:
            assert beside is not None
            bits = numbers.float().view(torch.int32)
            if self.name == "split8":
                bits = torch.where(numbers.isfinite(), (bits + 0x80) & ~0xFF, bits)
            high = torch.where(numbers.isfinite(), (bits + 0x8000) >> 16, bits >> 16)
            high = torch.where(numbers.isnan(), 0x7FC0, high)
            low = bits - (high << 16)
            kept.view(torch.int16).copy_(high)
            beside.copy_((low >> 8 if self.name == "split8" else low).where(numbers.isfinite(), 0))
        elif self.stochastic and self.name in ("bfloat16", "float16"):
            keep = 16 if self.name == "bfloat16" else 13
            bits = numbers.float().view(torch.int32)
            random16 = _like(draw(numbers.numel()).to(numbers.device), numbers)
            random = random16.to(torch.int32) & ((1 << keep) - 1)
            rounded = ((bits + random) & ~((1 << keep) - 1)).view(torch.float32)
            if self.name == "float16":  # whose smallest numbers, all multiples of 2⁻²⁴, have fewer bits
                fine = (numbers * 2.0**24 + random16 * 2.0**-16).floor() * 2.0**-24
                rounded = torch.where(numbers.abs() < 2.0**-14, fine, rounded)
            kept.copy_(torch.where(numbers.isfinite(), rounded, numbers))
        else:
            kept.copy_(numbers)

    def _encode_blocks(self, numbers: Tensor, kept: Tensor, beside: Tensor, draw: counter_rng.Draw) -> None:
        flat = _storage_order(numbers).float()
        flat = flat.sqrt() if self.name == "uint8" else flat
        padded = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)
        scales = padded.abs().amax(1)
        beside.copy_(scales)
        units = 255 * POINT - 4 if self.name == "uint8" else 1.0  # rounded, the largest is still below 255
        z = padded * torch.where(scales > 0, units / scales, 0.0)[:, None]
        code = (z if self.name == "uint8" else companded(z) * (127 * POINT)).view(-1)[: flat.numel()]
        code = code.nan_to_num(0.0).to(torch.int32)  # of a NaN the scale is NaN too, and so will be what is decoded
        if self.name == "uint8":
            code = torch.where(flat > 0, code.clamp(min=POINT), code)  # a denominator that is not zero stays so
        code = (code + draw(flat.numel()).to(flat.device, torch.int32)) >> 16
        kept.copy_(_like(code, kept))


def companded(x: Tensor) -> Tensor:
    """The z in [-1, 1] for which z (1 + z²) / 2 is ``x``, to 1e-4: half the unit near 0, twice the unit near ±1.

    The inverse of a cubic as one quotient, fitted for the least error on [0, 1]; what is decoded costs no quotient.
    """
    a = x.abs()
    return x * (2 + a * (6.2869 + 11.4696 * a)) / (1 + a * (3.0840 + a * (10.9547 + 4.7196 * a)))


def _storage_order(x: Tensor) -> Tensor:
    """The elements in the order of memory; of a tensor with gaps, in the order of its dimensions."""
    return x.as_strided((x.numel(),), (1,)) if is_dense(x) else x.reshape(-1)


def _like(flat: Tensor, x: Tensor) -> Tensor:
    """Elements in the order of :func:`_storage_order` as a tensor of the shape of ``x``."""
    return flat.as_strided(x.shape, x.stride()) if is_dense(x) else flat.view(x.shape)


@dataclass(frozen=True)
class Storage:
    """What the user asked for: ``state_dtype``, ``rounding`` and ``master`` of an optimizer's constructor."""

    state_dtype: str | None = None
    rounding: str = "nearest"
    master: str | None = None

    @property
    def rounds(self) -> bool:
        """Whether anything may be rounded at random."""
        return self.rounding == "stochastic" or self.state_dtype not in (None, "float32")

    @property
    def never_narrow(self) -> Storage:
        """The same for a state that begins as a copy of the parameter: in no fewer bits than the parameter has."""
        return replace(self, state_dtype=None) if self.state_dtype in ("bfloat16", "int8") else self

    def of_parameter(self, dtype: torch.dtype) -> Format:
        """The format of a parameter of this dtype."""
        if self.master and dtype == torch.bfloat16:
            return Format(self.master)
        return Format(name_of(dtype), stochastic=self.rounding == "stochastic" and dtype.itemsize == 2)

    def of_state(self, dtype: torch.dtype, signed: bool) -> Format:
        """The format of a state of a parameter of this dtype.

        What is asked to be narrow is rounded at random: a running mean whose steps are below half a unit would
        otherwise stand still.
        """
        if self.state_dtype is None:
            wide = self.master and dtype == torch.bfloat16
            random = self.rounding == "stochastic" and dtype.itemsize == 2
            return Format("float32") if wide else Format(name_of(dtype), random)
        if self.state_dtype == "int8":
            return Format("int8" if signed else "uint8", stochastic=True)
        if dtype == torch.float64 and self.state_dtype == "float32":
            return Format("float64")
        return Format(self.state_dtype, stochastic=self.state_dtype == "bfloat16")


def name_of(dtype: torch.dtype) -> str:
    """``torch.float32`` is ``float32``; a complex number is two of its parts."""
    return str(dtype.to_real()).removeprefix("torch.")

"""What every generated Triton kernel calls: formats, random bits, and functions that Triton lacks.

Imported where Triton is installed. `prelude.h` says the same in C.
"""

from __future__ import annotations

import triton
import triton.language as tl

from thalweg.runtime import formats

#: elements that share a scale
BLOCK_8 = tl.constexpr(formats.BLOCK)

# -- where data lies ------------------------------------------------------------------------------------------------


@triton.jit
def pointer(table, kind: tl.constexpr, FAST: tl.constexpr):
    """Where a tensor lies; ``FAST`` says that this is a multiple of 16, so that loads may be wide."""
    at = tl.load(table).to(tl.pointer_type(kind))
    if FAST:
        at = tl.multiple_of(at, 16)
    return at


@triton.jit
def number(table, FAST: tl.constexpr):
    """A number from a table; ``FAST`` says that it is a multiple of 16."""
    x = tl.load(table)
    if FAST:
        x = tl.multiple_of(x, 16)
    return x


@triton.jit
def inside(i, size, FAST: tl.constexpr):
    """Which elements exist; ``FAST`` says that all do, and the mask vanishes."""
    if FAST:
        return tl.full(i.shape, True, tl.int1)
    return i < size


# -- random bits, as `counter_rng.py` counts them -------------------------------------------------------------------


@triton.jit
def mix(x):
    """The bijection of uint32 that `counter_rng.mix` is."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0x735A2D97
    return x ^ (x >> 15)


@triton.jit
def stream(key, tensor, pair: tl.constexpr):
    """What two slots of one tensor start from."""
    return mix(key.to(tl.uint32) ^ mix(tensor.to(tl.uint32) * 8 + (pair + 1)))


@triton.jit
def bits(start, i):
    """32 random bits an element: two elements 16 apart share a hash, which the second has rotated by a byte."""
    x = mix((i // 32 * 16 + i % 16).to(tl.uint32) * 0x9E3779B9 + start)
    return tl.where((i & 16) == 0, x, (x >> 8) | (x << 24))


# -- formats --------------------------------------------------------------------------------------------------------


@triton.jit
def as_bits(x):
    """A float32 as uint32."""
    return x.to(tl.float32).to(tl.uint32, bitcast=True)


@triton.jit
def finite(u):
    """Whether the bits are those of a finite float32."""
    return (u & 0x7F800000) != 0x7F800000


@triton.jit
def to_bfloat16(x):
    """The nearest, ties to even: Triton's own conversion truncates in its interpreter."""
    u = as_bits(x)
    u = tl.where(x != x, 0x7FC00000, u + 0x7FFF + ((u >> 16) & 1))
    return (u >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def bfloat16_at_random(x, random):
    """Up or down to a bfloat16; ``random`` has 16 bits."""
    u = as_bits(x)
    kept = ((u + random) & 0xFFFF0000).to(tl.float32, bitcast=True)
    return tl.where(finite(u), kept, x.to(tl.float32)).to(tl.bfloat16)


@triton.jit
def float16_at_random(x, random):
    """Up or down to a float16, whose smallest numbers, all multiples of 2⁻²⁴, have fewer bits."""
    u = as_bits(x)
    kept = ((u + (random & 0x1FFF)) & 0xFFFFE000).to(tl.float32, bitcast=True)
    fine = tl.floor(x.to(tl.float32) * 16777216.0 + random.to(tl.float32) * 1.52587890625e-05) * 5.9604644775390625e-08
    kept = tl.where(tl.abs(x.to(tl.float32)) < 6.103515625e-05, fine, kept)
    return tl.where(finite(u), kept, x.to(tl.float32)).to(tl.float16)


@triton.jit
def join16(high, low):
    """A bfloat16's bits and the 16 below them."""
    return ((high.to(tl.int32) << 16) + low.to(tl.int32)).to(tl.float32, bitcast=True)


@triton.jit
def join8(high, low):
    """A bfloat16's bits and the 8 below them."""
    return ((high.to(tl.int32) << 16) + (low.to(tl.int32) << 8)).to(tl.float32, bitcast=True)


@triton.jit
def product(rows, columns, start, width, area, mask):
    """Elements of matrices from ``start`` on, given by a number for each row and one for each column."""
    height = (area // width).to(tl.int32)
    row, width = start // width, width.to(tl.int32)  # from here on 32 bits are enough, whose quotients are cheap
    at = (start % width).to(tl.int32) + tl.arange(0, mask.shape[0])
    over = at // width
    matrix = row // height + ((row % height).to(tl.int32) + over) // height
    return tl.load(rows + row + over, mask, 0) * tl.load(columns + matrix * width + at - over * width, mask, 0)


@triton.jit
def split16(x):
    """The nearest bfloat16's bits, and what is to be added to them."""
    u = as_bits(x)
    top = tl.where(finite(u), u + 0x8000, u) >> 16
    top = tl.where(x != x, 0x7FC0, top)
    low = tl.where(finite(u), u - (top << 16), 0)
    return top.to(tl.int16), low.to(tl.int16)


@triton.jit
def split8(x):
    """As `split16`, of a number rounded to 24 bits."""
    u = as_bits(x)
    u = tl.where(finite(u), (u + 0x80) & 0xFFFFFF00, u)
    top = tl.where(finite(u), u + 0x8000, u) >> 16
    top = tl.where(x != x, 0x7FC0, top)
    low = tl.where(finite(u), u - (top << 16), 0)
    return top.to(tl.int16), (low >> 8).to(tl.int8)


@triton.jit
def from_int8(code, scale):
    """The numbers that int8 codes stand for: finer near 0, as `formats.companded` says."""
    z = code.to(tl.float32) * (1.0 / 127.0)
    return z * (0.5 + 0.5 * z * z) * scale


@triton.jit
def from_uint8(code, scale):
    """The numbers that uint8 codes stand for, which are never negative: squares."""
    root = code.to(tl.float32) * (1.0 / 255.0) * scale
    return root * root


@triton.jit
def largest(x):
    """The largest of each row of magnitudes: bits of a positive float are ordered as it is, and NaN is above all."""
    return tl.max((as_bits(x) & 0x7FFFFFFF).to(tl.int32), axis=1).to(tl.float32, bitcast=True)


@triton.jit
def encode_int8(x, random, mask):
    """The codes, and the scale of each block."""
    rows: tl.constexpr = x.shape[0] // BLOCK_8
    x = tl.reshape(tl.where(mask, x.to(tl.float32), 0.0), (rows, BLOCK_8))
    scale = largest(x)
    z = x * tl.where(scale > 0, tl.div_rn(1.0, tl.where(scale > 0, scale, 1.0)), 0.0)[:, None]
    a = tl.abs(z)
    over = z * (2.0 + a * (6.2869 + 11.4696 * a))
    under = 1.0 + a * (3.0840 + a * (10.9547 + 4.7196 * a))
    q = tl.div_rn(over, under) * (127.0 * 65536.0)  # with 16 bits behind the point
    code = (tl.where(q == q, q, 0.0).to(tl.int32) + tl.reshape(random, (rows, BLOCK_8)).to(tl.int32)) >> 16
    return tl.reshape(code.to(tl.int8), (rows * BLOCK_8,)), scale


@triton.jit
def encode_uint8(x, random, mask):
    """The codes, and the scale of each block."""
    rows: tl.constexpr = x.shape[0] // BLOCK_8
    root = tl.sqrt_rn(tl.reshape(tl.where(mask, x.to(tl.float32), 0.0), (rows, BLOCK_8)))
    scale = largest(root)
    stretch = tl.where(scale > 0, tl.div_rn(255.0 * 65536.0 - 4.0, tl.where(scale > 0, scale, 1.0)), 0.0)
    q = root * stretch[:, None]  # with 16 bits behind the point, and rounded still below 255
    q = tl.maximum(tl.where(q == q, q, 0.0), tl.where(root > 0, 65536.0, 0.0))  # what is not zero stays so
    code = (q.to(tl.int32) + tl.reshape(random, (rows, BLOCK_8)).to(tl.int32)) >> 16
    return tl.reshape(code.to(tl.uint8), (rows * BLOCK_8,)), scale


@triton.jit
def store_scales(at, scale, start, size, BLOCK: tl.constexpr):
    """Lay down the scales of the blocks that exist."""
    b = tl.arange(0, BLOCK // BLOCK_8)
    tl.store(at + start // BLOCK_8 + b, scale, start + b * BLOCK_8 < size)


# -- functions that Triton has not, or not as precise ---------------------------------------------------------------


@triton.jit
def root(x):
    """The square root, also of denormal numbers, which Triton's own takes for 0 in float32."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    return tl.sqrt(x)


@triton.jit
def power(x, k):
    """x to the power of k, by way of float64: in float32 the logarithm would lose the last digits."""
    base, k = tl.cast(x, tl.float64), tl.cast(k, tl.float64)
    whole = k == tl.floor(k)
    y = tl.exp2(tl.log2(tl.where(whole, tl.abs(base), base)) * k)
    sign = tl.where(whole, tl.where(tl.floor(k * 0.5) == k * 0.5, 1.0, -1.0), 1.0)  # of a negative number's power
    y = tl.where(base < 0, sign * y, y)
    return tl.where(k == 0, 1.0, y)


@triton.jit
def cbrt(x):
    """The cube root: from logarithms, then one step of Halley's method, which restores the digits that they lose."""
    a = tl.abs(x)
    y = tl.exp2(tl.log2(a) / 3)
    t = a / (y * y) / y
    y = y * (1 + 2 * t) / (2 + t)
    return tl.where((x == 0) | (x - x != 0), x, tl.where(x < 0, -y, y))


@triton.jit
def log1p(x):
    """ln(1 + x), by Kahan's formula, in which the rounding of 1 + x cancels."""
    u = 1.0 + x
    safe = tl.where(u == 1.0, 2.0, u)
    return tl.where((u == 1.0) | (x == float("inf")), x, tl.log(safe) * (x / (safe - 1.0)))


@triton.jit
def tanh(x):
    r"""The hyperbolic tangent, from $e^{-2|x|} - 1$ by Kahan's formula, in which its rounding cancels."""
    y = -2.0 * tl.abs(x)
    u = tl.exp(y)
    plain = (u == 1.0) | (u < 0.5)
    e = tl.where(u == 1.0, y, tl.where(plain, u - 1.0, (u - 1.0) * y / tl.log(tl.where(plain, 2.0, u))))
    t = -e / (e + 2.0)
    return tl.where(x < 0, -t, t)


# -- sums -----------------------------------------------------------------------------------------------------------


@triton.jit
def add_up(partial, first, out, WHICH: tl.constexpr, OF: tl.constexpr, BLOCK: tl.constexpr):
    """Add up the partial sums of a stage's programs, one sum for each tensor, in a fixed order."""
    t = tl.program_id(0)
    end = tl.load(first + t + 1)
    total = tl.full((BLOCK,), 0.0, tl.float64)
    for start in range(tl.load(first + t), end, BLOCK):
        c = start + tl.arange(0, BLOCK)
        total += tl.load(partial + c * OF + WHICH, c < end, 0.0)
    tl.store(out + t, tl.sum(total))

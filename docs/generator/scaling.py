"""How long Muon's step takes on many GPUs, calculated: the model of docs/scaling.md, and what others have published.

Nothing overlaps. A training step does its operations at one speed, Newton-Schulz its own at another, each product takes
a moment to be launched, and messages go at one speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thalweg.shards import owners

#: sides of a matrix
Sides = tuple[int, int]
#: steps of Newton-Schulz, and products of each
STEPS, PRODUCTS = 5, 3


@dataclass(frozen=True)
class Machine:
    """GPUs.

    Attributes:
        training, products: floating-point operations a second of one GPU, in training and in Newton-Schulz.
        launch: seconds that a product takes at least.
        wire: bytes a second that a GPU sends.
    """

    training: float
    products: float
    launch: float = 0.0
    wire: float = 50e9


@dataclass(frozen=True)
class Share:
    """What Muon adds to a step, in parts of a step."""

    matrices: float
    messages: float

    @property
    def both(self) -> float:
        """One after the other."""
        return self.matrices + self.messages


def newton_schulz(sides: Sides, symmetric: bool = False) -> float:
    """Operations for one matrix; those of two symmetric products count half where kernels use it."""
    m, n = min(sides), max(sides)
    squares = 2 * m * m * n + 2 * m**3
    return STEPS * (squares / (2 if symmetric else 1) + 2 * m * m * n)


def transformer(width: int, layers: int) -> list[Sides]:
    """The matrices of a plain transformer: q, k, v, the output, and two of a perceptron four times as wide."""
    return [*[(width, width)] * 4, (4 * width, width), (width, 4 * width)] * layers


def share(matrices: Sequence[Sides], tokens: float, gpus: int, machine: Machine) -> Share:
    """What Muon adds to a step of a transformer of which these are all weights, sharded over all GPUs."""
    sizes = [m * n for m, n in matrices]
    owner = owners.assign([size * min(sides) for size, sides in zip(sizes, matrices, strict=True)], gpus)
    work = owners.loads([_seconds(sides, machine) for sides in matrices], owner, gpus)
    owned = owners.loads(sizes, owner, gpus)
    total = sum(sizes)
    step = 6 * total * tokens / gpus / machine.training
    there = max((total - mine) / gpus for mine in owned)
    back = max(owned) * (gpus - 1) / gpus
    return Share(max(work) / step, 4 * (there + back) / machine.wire / step)


def _seconds(sides: Sides, machine: Machine) -> float:
    return newton_schulz(sides, machine.products > machine.training) / machine.products + (
        STEPS * PRODUCTS * machine.launch
    )


#: the clusters of the table: name, width, layers, tokens a step
MODELS = (("1 B", 2048, 20, 1e6), ("70 B", 8192, 80, 4e6))
PLAIN = Machine(4e14, 4e14)


def rows() -> Iterator[str]:
    """The rows of the page's table, without the first two columns."""
    for name, width, layers, tokens in MODELS:
        for gpus in (8, 64, 1024):
            found = share(transformer(width, layers), tokens, gpus, PLAIN)
            numbers = " | ".join(f"{100 * x:.1f} %" for x in (found.matrices, found.messages, found.both))
            yield f"| {name} | {width:,}, {layers}, {tokens / 1e6:.0f} M | {gpus:,} | {numbers} |"


# -- what NVIDIA published of GB300: each GPU has whole experts, so that nothing of them travels ---------------------

#: 78 % of the 2.5·10¹⁵ of a GB300 in bfloat16; both numbers are set to the two published losses
GB300 = {"products": 1.95e15, "launch": 1.8e-6}


@dataclass(frozen=True)
class Published:
    """A mixture of experts that was trained with AdamW and Muon.

    Attributes:
        adamw, muon, products: TFLOP/s of the model's own operations with AdamW and with Muon, and of Newton-Schulz.
        gpus, sequences: GPUs, and sequences of 4,096 tokens a step: the power of two next to what ``products`` implies.
        per_token: operations of training for a token, with those of attention's scores.
        matrices: by their sides, how many there are.
    """

    name: str
    adamw: float
    muon: float
    products: float
    gpus: int
    sequences: int
    per_token: float
    matrices: dict[Sides, int]

    @property
    def operations(self) -> float:
        """Of one GPU in a step."""
        return self.per_token * self.sequences * 4096 / self.gpus

    @property
    def newton_schulz(self) -> float:
        """Operations of one GPU."""
        return sum(count * newton_schulz(sides) for sides, count in self.matrices.items()) / self.gpus

    def calculated(self) -> tuple[float, float]:
        """What Muon loses of the throughput, and the TFLOP/s of Newton-Schulz."""
        machine = Machine(self.adamw * 1e12, **GB300)
        step = self.operations / machine.training
        more = sum(count * _seconds(sides, machine) for sides, count in self.matrices.items()) / self.gpus
        return step / (step + more) - 1, self.newton_schulz / (step + more) / 1e12


PUBLISHED = (
    Published(
        "Kimi K2", 1051, 1029, 51, 256, 1024, 2.1e11,
        {(2048, 7168): 3 * 384 * 60, (18432, 7168): 3, (8192, 7168): 61, (12288, 1536): 61, (1536, 7168): 61,
         (16384, 512): 61, (576, 7168): 61, (7168, 2048): 3 * 60},
    ),
    Published(
        "Qwen3-30B-A3B", 713, 686, 35, 8, 128, 2.3e10,
        {(768, 2048): 3 * 128 * 48, (4096, 2048): 2 * 48, (512, 2048): 2 * 48},
    ),
)  # fmt: skip


def published() -> Iterator[str]:
    """The rows of the page's second table."""
    for one in PUBLISHED:
        loss, products = one.calculated()
        yield (
            f"| {one.name} | {one.gpus}, {one.sequences:,} × 4,096 | {100 * (one.muon / one.adamw - 1):.1f} % | "
            f"{100 * loss:.1f} % | {one.products} | {products:.0f} |"
        )


# -- what DMuon's authors published of eight A800: only owners compute -------------------------------------------------

#: floating-point operations of an A800 a second: the same share of its 3.12·10¹⁴ as above
PRODUCTS_OF_A800 = 0.78 * 3.12e14
#: how much sooner a symmetric product is done than a full one: 1.3 to 1.7 in their measurements, with a mean of 1.5
SYMMETRIC_GAIN = 1.5
#: bytes that PyTorch's AdamW moves for an element, and that DMuon's code moves around Newton-Schulz, all in float32
BYTES_OF_ADAMW, BYTES_AROUND = 80, 56
#: bytes a second of an A800's NVLink, by its data sheet
NVLINK = 400e9


def over_gram(sides: Sides) -> float:
    """Operations of Newton-Schulz over the Gram matrix, as DMuon runs it, with one restart.

    Two full products of the matrix, and two that give a Gram matrix; then fourteen of Gram matrices, all symmetric.
    """
    m, n = min(sides), max(sides)
    return 4 * m * m * n + (4 * m * m * n + 28 * m**3) / SYMMETRIC_GAIN


def seconds_over_gram(sides: Sides) -> float:
    """Of one matrix on an A800."""
    return over_gram(sides) / PRODUCTS_OF_A800 + 18 * GB300["launch"]


#: seconds that they have published for Newton-Schulz of one matrix with symmetric kernels
ONE_MATRIX: dict[Sides, float] = {
    (2048, 2048): 1.867e-3, (2048, 8192): 2.531e-3, (2048, 11008): 3.011e-3,
    (3072, 3072): 3.476e-3, (3072, 8192): 5.014e-3, (3584, 3584): 5.280e-3, (3584, 18944): 11.216e-3,
    (4096, 4096): 7.453e-3, (4096, 14336): 12.730e-3, (5120, 5120): 14.127e-3, (5120, 13824): 20.508e-3,
    (7168, 7168): 36.723e-3, (7168, 18432): 52.255e-3,
}  # fmt: skip


def difference(sides: Sides) -> float:
    """Of the calculated time of one matrix from the published one, as a share of the latter."""
    return seconds_over_gram(sides) / ONE_MATRIX[sides] - 1


@dataclass(frozen=True)
class Timed:
    """A model that was trained on eight GPUs, two sequences of 2,048 tokens on each.

    Attributes:
        width, inner, shared, layers: of its transformer; ``shared`` is the width of its keys and values.
        weights: all of them.
        step, adamw: milliseconds of a training step with AdamW, and of AdamW in it.
        muon_step, muon: the same of DMuon.
    """

    name: str
    width: int
    inner: int
    shared: int
    layers: int
    weights: float
    step: float
    adamw: float
    muon_step: float
    muon: float

    @property
    def matrices(self) -> list[Sides]:
        """Those that DMuon orthogonalizes."""
        d = self.width
        return [*[(d, d)] * 2, *[(self.shared, d)] * 2, *[(self.inner, d)] * 3] * self.layers

    @property
    def share(self) -> float:
        """Of all weights, how many stand in these matrices."""
        return sum(m * n for m, n in self.matrices) / self.weights

    def calculated(self) -> float:
        """Milliseconds: the busiest owner's products and passes over memory, and AdamW's of all other weights."""
        sizes = [m * n for m, n in self.matrices]
        owner = owners.assign(sizes, 8)  # by their elements, as DMuon does
        each = [
            1e3 * seconds_over_gram(sides) + self.adamw * BYTES_AROUND / BYTES_OF_ADAMW * size / (self.weights / 8)
            for sides, size in zip(self.matrices, sizes, strict=True)
        ]
        return max(owners.loads(each, owner, 8)) + self.adamw * (1 - self.share)

    def longer(self) -> float:
        """By what share the step is longer than with AdamW: whole weights are not gathered again for backward."""
        gathering = 1e3 * 2 * self.share * self.weights * 7 / 8 / NVLINK
        return (self.calculated() - self.adamw - gathering) / self.step


TIMED = (
    Timed("Qwen2.5-1.5B", 1536, 8960, 256, 28, 1.54e9, 327.6, 17.3, 339.9, 31.1),
    Timed("Llama-3.2-3B", 3072, 8192, 1024, 28, 3.61e9, 598.9, 26.5, 659.6, 98.8),
    Timed("Qwen2.5-7B", 3584, 18944, 512, 28, 7.62e9, 1107.9, 53.1, 1222.1, 188.8),
    Timed("Llama-3.1-8B", 4096, 14336, 1024, 32, 8.03e9, 1187.7, 55.5, 1348.7, 260.4),
)


def timed() -> Iterator[str]:
    """The rows of the page's third table."""
    for one in TIMED:
        found = one.calculated()
        numbers = " | ".join(f"{100 * x:+.1f} %" for x in (one.muon_step / one.step - 1, one.longer()))
        yield (
            f"| {one.name} | {one.muon:.0f} ms | {found:.0f} ms | {100 * (found / one.muon - 1):+.0f} % | {numbers} |"
        )


if __name__ == "__main__":
    print(*rows(), *published(), *timed(), sep="\n")
    print(*(f"{sides}: {100 * difference(sides):+.0f} %" for sides in ONE_MATRIX), sep=", ")

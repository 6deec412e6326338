"""Two surfaces over the plane, on which a path can be seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """A function of two numbers, and the window in which it is drawn.

    Attributes:
        name: in file names and data.
        title: in pictures.
        height: of a point, from x and y.
        start: where a path begins.
        window: least and greatest x, least and greatest y.
        lowest: the points where the function is least.
        powers: contours are drawn at these powers of ten above the least value.
    """

    name: str
    title: str
    height: Callable[[Tensor, Tensor], Tensor]
    start: tuple[float, float]
    window: tuple[float, float, float, float]
    lowest: tuple[tuple[float, float], ...]
    least: float
    powers: tuple[float, ...]


def _ravine(x: Tensor, y: Tensor) -> Tensor:
    return (1 - x) ** 2 + 20 * (y - x**2) ** 2


def _camel(x: Tensor, y: Tensor) -> Tensor:
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


#: Rosenbrock's curved valley with steepness 20: its floor falls slowly, its walls are steep
RAVINE = Surface(
    "ravine",
    "Curved ravine",
    _ravine,
    (-1.3, 0.6),
    (-1.75, 1.75, -0.6, 2.0),
    ((1.0, 1.0),),
    0.0,
    (-2.0, -1.4, -0.8, -0.2, 0.3, 0.7, 1.1, 1.5, 1.9),
)
#: the six-hump camel of Dixon & Szegö 1978: six basins, of which two are lowest, with saddles between them
CAMEL = Surface(
    "camel",
    "Six basins",
    _camel,
    (1.85, -0.15),
    (-2.0, 2.0, -1.15, 1.15),
    ((0.0898, -0.7126), (-0.0898, 0.7126)),
    -1.0316,
    (-1.0, -0.5, -0.2, 0.0, 0.15, 0.3, 0.42, 0.55, 0.75),
)
SURFACES = (RAVINE, CAMEL)

STEEPNESS = 40.0


def _valley(x: Tensor, y: Tensor) -> Tensor:
    return 0.5 * x**2 + 0.5 * STEEPNESS * y**2


def _tilted(x: Tensor, y: Tensor) -> Tensor:
    along, across = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x
    return _valley(along, across)


_POWERS = (-2.5, -1.5, -0.9, -0.4, 0.0, 0.35, 0.65, 0.95, 1.25)
#: a straight valley 40 times as steep across as along, with the axes and between them
STRAIGHT = Surface(
    "straight", "Valley along an axis", _valley, (-1.6, 0.3), (-1.9, 1.0, -0.8, 0.8), ((0, 0),), 0, _POWERS
)
TILTED = Surface(
    "tilted", "Valley between the axes", _tilted, (-1.46, -0.72), (-1.9, 1.0, -1.15, 0.75), ((0, 0),), 0, _POWERS
)

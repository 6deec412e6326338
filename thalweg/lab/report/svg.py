"""A small chart kit: scales, ticks and marks to strings of SVG. It knows nothing of races."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """From data to pixels, linear or logarithmic.

    Attributes:
        low, high: ends of the data; low < high, both > 0 where ``log``.
        start, end: the pixels that they fall on.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels of a value; outside the ends it is held at the nearer one."""
        f: Callable[[float], float] = math.log if self.log else float
        held = min(max(value, self.low), self.high)
        share = (f(held) - f(self.low)) / (f(self.high) - f(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round values between the ends, at most some ``about`` of them."""
        return log_ticks(self.low, self.high, about) if self.log else linear_ticks(self.low, self.high, about)


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Powers of ten within [low, high], or 1-2-5, or round linear ones, whichever first gives three."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for digits in ((1,), (1, 3), (1, 2, 5)):
        ticks = [d * 10.0**k for k in decades for d in digits if low <= d * 10.0**k <= high]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / (about + 2))]
    return linear_ticks(low, high, about)


def padded(values: Iterable[float], log: bool = False, share: float = 0.06) -> tuple[float, float]:
    """Ends of an axis that holds all values with some room; a single value gets room as well."""
    low, high = min(values := list(values)), max(values)
    if log:
        room = max((high / low) ** share, 1.02)
        return low / room, high * room
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def number(value: float) -> str:
    """A short number for an axis or a label: four significant digits at most."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.4g}"
        return (f"{value:,.0f}" if "e" in text else text).replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", "−")


@dataclass
class Chart:
    """A drawing area with axes; marks are added in the order in which they are painted.

    Attributes:
        title, description: read out by screen readers.
        width, height: of the whole, in pixels of its own; it scales to the page.
        margins: left, top, right, bottom.
    """

    title: str
    description: str
    width: int = 480
    height: int = 300
    margins: tuple[int, int, int, int] = (56, 14, 16, 44)
    marks: list[str] = field(default_factory=list)

    def scales(
        self, x: tuple[float, float], y: tuple[float, float], *, log_x: bool, log_y: bool
    ) -> tuple[Scale, Scale]:
        """Scales that fill the area within the margins; y grows upwards."""
        left, top, right, bottom = self.margins
        return (
            Scale(*x, left, self.width - right, log_x),
            Scale(*y, self.height - bottom, top, log_y),
        )

    def axes(self, x: Scale, y: Scale, x_label: str, y_label: str, x_ticks: Sequence[tuple[float, str]] = ()) -> None:
        """Grid lines, tick labels and axis labels."""
        for tick in y.ticks():
            self.line([(x.start, y(tick)), (x.end, y(tick))], "rule")
            self.text(x.start - 6, y(tick) + 4, number(tick), "tick", "end")
        for tick, text in x_ticks or [(t, number(t)) for t in x.ticks()]:
            self.line([(x(tick), y.start), (x(tick), y.start + 4)], "axis")
            self.text(x(tick), y.start + 17, text, "tick", "middle")
        self.line([(x.start, y.start), (x.end, y.start)], "axis")
        self.text((x.start + x.end) / 2, self.height - 8, x_label, "label", "middle")
        self.marks.append(
            '<text class="label" text-anchor="middle" '
            f'transform="translate(13 {(y.start + y.end) / 2:.1f}) rotate(-90)">{escape(y_label)}</text>'
        )

    def line(self, points: Iterable[Point], css: str, title: str = "") -> None:
        """A polyline; fewer than two points draw nothing."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        if " " in path:
            self._mark(f'<polyline class="{css}" points="{path}"', title)

    def dot(self, x: float, y: float, css: str, radius: float = 4, title: str = "") -> None:
        """A disc."""
        self._mark(f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"', title)

    def square(self, x: float, y: float, css: str, radius: float = 4, title: str = "") -> None:
        """A square around a place."""
        self.box(x - radius, y - radius, 2 * radius, 2 * radius, css, title)

    def cross(self, x: float, y: float, css: str, radius: float = 4, title: str = "") -> None:
        """A diagonal cross."""
        r = radius
        path = f"M{x - r:.1f} {y - r:.1f}l{2 * r:g} {2 * r:g}m0 {-2 * r:g}l{-2 * r:g} {2 * r:g}"
        self._mark(f'<path class="{css}" d="{path}"', title)

    def box(self, x: float, y: float, width: float, height: float, css: str, title: str = "") -> None:
        """A rectangle by its upper left corner."""
        size = f'width="{max(0.0, width):.1f}" height="{height:.1f}"'
        self._mark(f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" {size}', title)

    def text(self, x: float, y: float, text: str, css: str, anchor: str = "start") -> None:
        """A line of text; ``anchor`` is start, middle or end."""
        self.marks.append(f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def _mark(self, tag: str, title: str) -> None:
        self.marks.append(f"{tag}><title>{escape(title)}</title></{tag[1:].split()[0]}>" if title else f"{tag}/>")

    def svg(self, style: str = "") -> str:
        """The finished drawing; ``style`` is CSS of its own for one that stands alone."""
        own = f"<style>{style}</style>" if style else ""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img">'
            f"<title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>{own}{''.join(self.marks)}</svg>"
        )

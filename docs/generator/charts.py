"""Pictures as SVG that a page of either colour can carry: surfaces with paths, and lines over axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import contourpy
import torch

from docs.generator.surfaces import Surface
from thalweg.explain.columns import width as room

#: told apart by people who see colours differently too (Okabe & Ito), on light and on dark
COLORS = ("#0072b2", "#d55e00", "#009e73", "#b8558d", "#a87900", "#3b9bd1")
ON_DARK = ("#4aa8e8", "#ff8a3d", "#2cc89b", "#e39ac4", "#e6b422", "#9ad4f5")
DASHES = ("", "9 3", "3 3", "9 3 3 3", "14 4", "1 4")
GRID = 161
#: columns of text, as in a terminal, for which half of a legend has room
HALF = 22
_MARKS = "\n".join(f".s{i} {{ stroke: {c}; }} .f{i} {{ fill: {c}; }}" for i, c in enumerate(COLORS))
_DARK_MARKS = " ".join(f".s{i} {{ stroke: {c}; }} .f{i} {{ fill: {c}; }}" for i, c in enumerate(ON_DARK))
STYLE = f"""
{_MARKS}
text {{ font: 12px system-ui, sans-serif; fill: #4b5563; }}
.title {{ font-size: 13px; font-weight: 600; fill: #1f2933; }}
.contour {{ fill: none; stroke: #8ea3b8; stroke-width: 1; }}
.rule {{ stroke: #dfe3e8; }} .axis {{ stroke: #8d96a1; }} .rule, .axis {{ fill: none; }}
.path {{ fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }}
.line {{ fill: none; stroke-width: 2.2; stroke-linejoin: round; }}
.start {{ fill: none; stroke: #1f2933; stroke-width: 1.6; }} .goal {{ stroke: #1f2933; stroke-width: 1.6; }}
/* a narrow screen shows the picture at two thirds of its size */
@media (max-width: 430px) {{ .wide text {{ font-size: 15px; }} }}
@media (prefers-color-scheme: dark) {{
  text {{ fill: #b6bec9; }} .title {{ fill: #e8ebef; }}
  .contour {{ stroke: #56667a; }} .rule {{ stroke: #363c46; }} .axis {{ stroke: #7d8794; }}
  .start, .goal {{ stroke: #e8ebef; }}
  {_DARK_MARKS}
}}
"""


@dataclass(frozen=True)
class Path:
    """A path over a surface, with its name."""

    label: str
    points: Sequence[tuple[float, float]]


def svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A picture that says what it shows to those who cannot see it."""
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"' + ' class="wide"' * (width > 430)
    head = f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{head}\n' + "\n".join(parts) + "\n</svg>\n"


# -- surfaces --------------------------------------------------------------------------------------------------------


def over(surface: Surface, paths: Sequence[Path], width: float = 340, title: str = "") -> str:
    """Contours of a surface, its lowest points (×), and paths from the start (○)."""
    left, right, bottom, top = surface.window
    scale = width / (right - left)
    high = (top - bottom) * scale
    legend = 18 * len(paths) + 6 if len(paths) > 1 else 0

    def at(x: float, y: float) -> str:
        return f"{(x - left) * scale:.1f},{(top - y) * scale + 24:.1f}"

    parts = [f'<text class="title" x="2" y="14">{escape(title or surface.title)}</text>']
    parts.append(f'<clipPath id="w"><rect x="0" y="24" width="{width:g}" height="{high:.1f}"/></clipPath>')
    parts.append('<g clip-path="url(#w)">')
    parts += [f'<polyline class="contour" points="{" ".join(at(*p) for p in line)}"/>' for line in _contours(surface)]
    for i, path in enumerate(paths):
        points = list(_kept(path.points, 0.4 / scale))
        dash = f' stroke-dasharray="{DASHES[i]}"' if i and len(paths) > 1 else ""
        parts.append(
            f'<polyline class="path s{i}"{dash} points="{" ".join(at(*p) for p in points)}"/>'
            f'<circle cx="{at(*points[-1]).split(",")[0]}" cy="{at(*points[-1]).split(",")[1]}" r="3.4" class="f{i}"/>'
        )
    x, y = at(*surface.start).split(",")
    parts.append(f'<circle class="start" cx="{x}" cy="{y}" r="5"/>')
    for low in surface.lowest:
        x, y = map(float, at(*low).split(","))
        parts.append(f'<path class="goal" d="M{x - 4:.1f},{y - 4:.1f}l8,8m0,-8l-8,8"/>')
    parts.append("</g>")
    for i, path in enumerate(paths if legend else ()):
        y = 24 + high + 18 * (i + 1)
        dash = f' stroke-dasharray="{DASHES[i]}"' if i else ""
        parts.append(
            f'<path class="path s{i}"{dash} d="M4,{y - 4:.1f}h28"/><text x="40" y="{y:.1f}">{escape(path.label)}</text>'
        )
    names = ", ".join(path.label for path in paths)
    return svg(width, 26 + high + legend, f"{title or surface.title}: {names}", parts)


def _kept(points: Iterable[tuple[float, float]], least: float) -> Iterable[tuple[float, float]]:
    """Points without those that lie where the last one does; those far away are drawn at the rim of the far."""
    last = None
    for x, y in points:
        x, y = max(-9.0, min(9.0, x)), max(-9.0, min(9.0, y))
        if last is None or math.dist(last, (x, y)) >= least:
            yield (x, y)
            last = (x, y)


@functools.cache
def _contours(surface: Surface) -> list[list[tuple[float, float]]]:
    left, right, bottom, top = surface.window
    x, y = torch.linspace(left, right, GRID).double(), torch.linspace(bottom, top, GRID).double()
    z = surface.height(x[None, :].expand(GRID, GRID), y[:, None].expand(GRID, GRID)) - surface.least
    lines = contourpy.contour_generator(x.numpy(), y.numpy(), z.numpy())
    apart = (right - left) / 150
    return [
        list(_kept([(float(a), float(b)) for a, b in line], apart))
        for power in surface.powers
        for line in lines.lines(10**power)
    ]


# -- lines -----------------------------------------------------------------------------------------------------------


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str,
    y_label: str,
    *,
    log_x: bool = False,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    stairs: bool = False,
    width: float = 520,
    height: float = 278,
) -> str:
    """Lines over two axes, with a legend below where there are several."""
    points = [p for line in series.values() for p in line]
    to_x = _axis([x for x, _ in points], log_x, None)
    to_y = _axis([y for _, y in points], log_y, y_range)
    left, right, top, bottom = 58.0, width - 14, 44.0, height - 40

    def px(x: float) -> float:
        return left + to_x.share(x) * (right - left)

    def py(y: float) -> float:
        return bottom - to_y.share(y) * (bottom - top)

    parts = [f'<text class="title" x="{left:g}" y="14">{escape(title)}</text>']
    for tick, label in to_y.ticks():
        parts.append(f'<path class="rule" d="M{left:g},{py(tick):.1f}H{right:g}"/>')
        parts.append(f'<text x="{left - 6:g}" y="{py(tick) + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<path class="axis" d="M{left:g},{bottom:g}H{right:g}"/>')
    for tick, label in to_x.ticks():
        parts.append(f'<path class="axis" d="M{px(tick):.1f},{bottom:g}v5"/>')
        parts.append(f'<text x="{px(tick):.1f}" y="{bottom + 18:g}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{(left + right) / 2:g}" y="{bottom + 35:g}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="{left:g}" y="32">{escape(y_label)}</text>')
    several = len(series) > 1
    across = 2 if all(room(label) <= HALF for label in series) else 1
    for i, (label, line) in enumerate(series.items()):
        dash = DASHES[i] if several else ""
        drawn = _stairs(line) if stairs else line
        text = " ".join(f"{px(x):.1f},{py(min(max(y, to_y.low), to_y.high)):.1f}" for x, y in drawn)
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(f'<polyline class="line s{i}"{dashed} points="{text}"/>')
        if several:
            x, y = left + (i % across) * (right - left) / 2, height + 16 + 18 * (i // across)
            parts.append(
                f'<path class="line s{i}"{dashed} d="M{x:g},{y - 4:g}h28"/>'
                f'<text x="{x + 36:g}" y="{y:g}">{escape(label)}</text>'
            )
    extra = 18 * math.ceil(len(series) / across) + 6 if several else 0
    return svg(width, height + extra, f"{title} ({x_label} → {y_label})", parts)


def _stairs(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Each value holds until the next."""
    out: list[tuple[float, float]] = []
    for x, y in line:
        if out:
            out.append((x, out[-1][1]))
        out.append((x, y))
    return out


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool

    def share(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        if self.log:
            return math.log(max(value, 1e-300) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Powers of ten, or some four round numbers."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first >= 2:
                apart = max(1, (last - first) // 6)
                return [(10.0**k, _power(k)) for k in range(first, last + 1, apart)]
            found = [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5)]
            return [(v, f"{v:g}") for v in found if self.low <= v <= self.high * 1.001]
        rough = (self.high - self.low) / 4
        unit = 10 ** math.floor(math.log10(rough))
        step = min((m * unit for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - rough))
        count = math.floor((self.high - self.low) / step + 1e-9)
        begin = math.ceil(self.low / step - 1e-9)
        return [
            (k * step, f"{k * step:,.10g}") for k in range(begin, begin + count + 1) if k * step <= self.high * 1.0001
        ]


def _power(k: int) -> str:
    if -3 <= k <= 3:
        return f"{10.0**k:g}"
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return "10" + str(k).translate(digits)


def _axis(values: Sequence[float], log: bool, within: tuple[float, float] | None) -> _Axis:
    low, high = within or (min(values), max(values))
    if high <= low:
        high = low + 1
    return _Axis(low, high, log)

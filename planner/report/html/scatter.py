"""The Pareto chart as inline SVG: output per GPU against speed for one user."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 24, 20, 58
_APART = 23.0  # between the centres of numbered dots
Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Dot:
    """One point: ``series`` picks its colour, ``label`` is drawn on it, ``tip`` shows on hover, focus and touch."""

    x: float
    y: float
    series: int
    tip: str
    label: str = ""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``."""
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    raw = span / about
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next((factor for factor in (1, 2, 2.5, 5, 10) if factor * step >= raw), 10)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, max(last, first + 1) + 1)]


def scatter(line: Sequence[Dot], dots: Sequence[Dot], x_title: str, y_title: str) -> str:
    """Draw the frontier as steps with small dots and the ranked plans as numbered ones."""
    every = [dot for dot in (*line, *dots) if math.isfinite(dot.x) and math.isfinite(dot.y)]
    if not every:
        return ""
    xs, ys = ticks(min(d.x for d in every), max(d.x for d in every)), ticks(0.0, max(d.y for d in every))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / (xs[-1] - xs[0]) * (_WIDTH - _LEFT - _RIGHT)
        up = (y - ys[0]) / (ys[-1] - ys[0]) * (_HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_title)} over {escape(x_title)}">']
    for x in xs:
        at = place(x, ys[0])[0]
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{at}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{x:,.6g}</text>')
    for y in ys:
        at = place(xs[0], y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{y:,.6g}</text>')
    middle, side = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    turned = f'transform="rotate(-90 18 {side})"'
    parts.append(f'<text class="axis" x="18" y="{side}" text-anchor="middle" {turned}>{escape(y_title)}</text>')
    parts += _frontier([*line, *dots], place)
    parts += [_dot(dot, place, 5) for dot in line] + _numbered(dots, place)
    return "".join(parts) + "</svg>"


def _frontier(every: Sequence[Dot], place: Place) -> list[str]:
    """Steps between neighbours that no other point beats on both axes: between two plans nothing better is known."""
    path, best = "", -math.inf
    for dot in sorted(every, key=lambda dot: (-dot.x, -dot.y)):
        if dot.y > best:
            x, y = place(dot.x, dot.y)
            path += f"H{x}V{y}" if path else f"M{x} {y}"
            best = dot.y
    return [f'<path class="front" d="{path}"/>'] if "V" in path else []


def _numbered(dots: Sequence[Dot], place: Place) -> list[str]:
    """The ranked plans, the first on top; one that would hide another moves up or down and keeps a stem."""
    taken: list[tuple[float, float]] = []
    drawn = []
    for dot in dots:
        x, y = place(dot.x, dot.y)
        moves = (step * side * _APART for step in range(2 * len(dots) + 1) for side in (-1, 1))
        free = (y + move for move in moves if _TOP - 12 <= y + move <= _HEIGHT - _BOTTOM and _clear(x, y + move, taken))
        at = next(free, y)
        taken.append((x, at))
        stem = "" if at == y else f'<line class="stem" x1="{x}" x2="{x}" y1="{y}" y2="{at}"/>'
        drawn.append(stem + _mark(dot, x, round(at, 1), 11))
    return drawn[::-1]


def _clear(x: float, y: float, taken: Sequence[tuple[float, float]]) -> bool:
    return all(math.hypot(x - a, y - b) >= _APART - 1 for a, b in taken)


def _dot(dot: Dot, place: Place, size: int) -> str:
    return _mark(dot, *place(dot.x, dot.y), size)


def _mark(dot: Dot, x: float, y: float, size: int) -> str:
    text = f'<text class="on" x="{x}" y="{y + 4}" text-anchor="middle">{escape(dot.label)}</text>' if dot.label else ""
    tip = escape(dot.tip, quote=True)
    return (
        f'<g class="dot c{dot.series % 6}" tabindex="0" data-tip="{tip}"><title>{tip}</title>'
        f'<circle cx="{x}" cy="{y}" r="{size}"/>{text}</g>'
    )

"""The Pareto chart as inline SVG: output per GPU against speed for one user."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 24, 20, 58


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
    parts += _frontier(line, place)
    parts += [_dot(dot, place, 5) for dot in line] + [_dot(dot, place, 11) for dot in reversed(dots)]
    return "".join(parts) + "</svg>"


def _frontier(line: Sequence[Dot], place: object) -> list[str]:
    """Steps between neighbours on the frontier: between two plans nothing better is known."""
    assert callable(place)
    ordered = sorted(line, key=lambda dot: dot.x)
    if len(ordered) < 2:
        return []
    path = "M{} {}".format(*place(ordered[0].x, ordered[0].y))
    for dot in ordered[1:]:
        x, y = place(dot.x, dot.y)
        path += f"V{y}H{x}"
    return [f'<path class="front" d="{path}"/>']


def _dot(dot: Dot, place: object, size: int) -> str:
    assert callable(place)
    x, y = place(dot.x, dot.y)
    text = f'<text class="on" x="{x}" y="{y + 4}" text-anchor="middle">{escape(dot.label)}</text>' if dot.label else ""
    tip = escape(dot.tip, quote=True)
    return (
        f'<g class="dot c{dot.series % 6}" tabindex="0" data-tip="{tip}"><title>{tip}</title>'
        f'<circle cx="{x}" cy="{y}" r="{size}"/>{text}</g>'
    )

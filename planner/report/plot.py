"""Charts for the terminal: a scatter of braille dots, and bars of blocks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from planner.plan import PlanFile
from planner.report.plans import latency

_NARROWEST = 60
_ROWS = 12
# Bit of each of the 2 x 4 dots of a braille character, by column and row from the top (Unicode chapter 21.1).
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_PARTS = (("weights_gib", "█", "weights"), ("kv_gib", "▓", "KV"), ("activations_gib", "▒", "activations"))
Point = tuple[float, float]


def braille(points: Sequence[Point], marks: Mapping[str, Point], columns: int, rows: int = _ROWS) -> list[str]:
    """Draw points as dots and marks as their text, on axes from the least x and from zero; top line first."""
    every = [*points, *marks.values()]
    low, high, top = min(x for x, _ in every), max(x for x, _ in every), max(y for _, y in every)

    def cell(x: float, y: float) -> tuple[int, int]:
        across = (x - low) / (high - low) if high > low else 0.5
        up = y / top if top > 0 else 0.0
        return round(across * (2 * columns - 1)), round((1 - up) * (4 * rows - 1))

    dots = [[0] * columns for _ in range(rows)]
    for point in points:
        x, y = cell(*point)
        dots[y // 4][x // 2] |= _BITS[x % 2][y % 4]
    lines = [[chr(0x2800 + bits) if bits else " " for bits in row] for row in dots]
    for text, point in reversed(list(marks.items())):
        x, y = cell(*point)
        start = min(x // 2, columns - len(text))
        lines[y // 4][start : start + len(text)] = text
    return ["".join(line) for line in lines]


def pareto_text(found: PlanFile) -> str:
    """Output per GPU over speed for one user: dots are the frontier, numbers the plans. Empty when narrow."""
    width = shutil.get_terminal_size((80, 24)).columns
    percentile = str(found.job.get("slo", {}).get("percentile", "p95"))
    known = [p for p in found.search.pareto if p.get("tok_s_per_user") and p.get("output_tok_s_per_gpu")]
    points = [(float(p["tok_s_per_user"]), float(p["output_tok_s_per_gpu"])) for p in known]
    marks = {
        str(plan.rank): (1e3 / latency(plan.predicted, "tpot_ms", percentile), plan.predicted.output_tok_s_per_gpu)
        for plan in found.plans[:9]
        if latency(plan.predicted, "tpot_ms", percentile) > 0
    }
    if width < _NARROWEST or len(points) + len(marks) < 2:
        return ""
    columns = min(width, 100) - 12
    top = max(y for _, y in [*points, *marks.values()])
    xs = [x for x, _ in [*points, *marks.values()]]
    lines = [f"{top if index == 0 else 0:>9,.0f} " if index in (0, _ROWS - 1) else " " * 10 for index in range(_ROWS)]
    drawn = [f"{left}│{row}".rstrip() for left, row in zip(lines, braille(points, marks, columns), strict=True)]
    ends = f"{min(xs):.4g}", f"{max(xs):.4g}"
    axis = " " * 10 + "└" + "─" * columns
    scale = " " * 11 + ends[0] + " " * max(1, columns - len(ends[0]) - len(ends[1])) + ends[1]
    title = "output tok/s per GPU over tok/s for one user; dots: the frontier, numbers: the ranked plans"
    return "\n".join(["", title, *drawn, axis, scale]) + "\n"


def memory_bar(memory: Mapping[str, float], columns: int = 60) -> str:
    """One bar of what a GPU holds, with its key."""
    whole = max(memory["capacity_gib"], 1e-9)
    bar = "".join(mark * round(columns * memory[name] / whole) for name, mark, _ in _PARTS)[:columns]
    key = "  ".join(f"{mark} {title}" for _, mark, title in _PARTS)
    return f"  {bar:░<{columns}}  {key}  ░ free"


def share_bar(share: float, columns: int = 24) -> str:
    """A share as a percentage and a bar."""
    return f"{share:4.0%} " + "█" * round(share * columns)

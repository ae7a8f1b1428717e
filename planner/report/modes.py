"""How the best plan of each mode compares, and which term decides."""

from __future__ import annotations

from planner.plan import ModeRow, PlanFile

_TIE = 5e-3


def compare_modes(found: PlanFile) -> list[str]:
    """One line per further mode; none where only one was searched or met the request."""
    rows = found.search.modes
    return [_line(rows[0], other, found.plans[0].certificate.objective) for other in rows[1:]]


def _line(first: ModeRow, other: ModeRow, objective: str) -> str:
    gap = abs(other.value - first.value) / max(abs(first.value), 1e-12)
    best = f"the best {other.mode} plan ({other.plan})"
    if gap < _TIE:
        return f"{best} ties with {first.mode} on {objective}"
    behind = f"{best} is {gap:.1%} behind {first.mode} on {objective}"
    name, ratio = _deciding(first, other, objective)
    return behind if abs(ratio - 1) < _TIE else f"{behind}: {name} is {ratio:.2f} times that of {first.mode}"


def _deciding(first: ModeRow, other: ModeRow, objective: str) -> tuple[str, float]:
    """The term in which both differ most, of those that the objective is made of."""
    latency = objective == "latency"
    shared = {
        name: other.terms[name] / value
        for name, value in first.terms.items()
        if value > 0 and other.terms.get(name, 0) > 0 and (name in ("TTFT", "TPOT")) == latency
    }
    name = max(shared, key=lambda term: max(shared[term], 1 / shared[term]))
    return name, shared[name]

"""How the best plan of each mode compares, and which term decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from planner.plan import ModeRow, PlanFile, RejectedRow
from planner.search.terms import DECODING, FACTORS, FULL, GPUS, PRICE, WATTS

_TIE = 5e-3
_BINDS = 0.97
_SECONDS = "seconds of a token"
_PAID = {"cost": PRICE, "energy": WATTS}
_MARKS = {"af": "af ", "pd": "decode "}
"""What the ledger calls candidates of a split mode."""


def compare_modes(found: PlanFile) -> list[str]:
    """One line per further mode that was searched, splits without a plan last."""
    rows = found.search.modes
    slo = found.job.get("slo") or {}
    lines = [_line(rows[0], other, found.plans[0].certificate.objective, slo) for other in rows[1:]]
    if found.plans[0].mode in {other.mode for other in rows[1:]}:  # the simulation has changed the order
        lines = [f"by the closed form {line}" for line in lines]
    asked, there = found.job.get("modes") or (), {row.mode for row in rows}
    return lines + [_missing(mode, found.search.rejected) for mode in asked if mode in _MARKS and mode not in there]


def _missing(mode: str, rejected: Sequence[RejectedRow]) -> str:
    """Why a mode has no plan: what most of its candidates fell out by."""
    row = next((row for row in rejected if _MARKS[mode] in row.nearest), None)
    return f"no {mode} plan" + (f": {row.reason} ({row.nearest})" if row else " meets the request")


def _line(first: ModeRow, other: ModeRow, objective: str, slo: Mapping[str, object]) -> str:
    gap = abs(other.value - first.value) / max(abs(first.value), 1e-12)
    best = f"the best {other.mode} plan ({other.plan})"
    if gap < _TIE:
        return f"{best} ties with {first.mode} on {objective}"
    behind = f"{best} is {gap:.1%} behind {first.mode} on {objective}"
    decides = _latency(first, other) if objective == "latency" else _output(first, other, slo, objective)
    return f"{behind}: {decides}" if decides else behind


def _output(first: ModeRow, other: ModeRow, slo: Mapping[str, object], objective: str) -> str:
    """The factor of the output (per dollar, watt or GPU where that is asked) by which the lesser plan loses most, and
    for requests what holds them down."""
    ratios = {name: other.terms[name] / first.terms[name] for name in FACTORS if _both(first.terms, other.terms, name)}
    if objective != "throughput":
        ratios.pop(GPUS, None)  # whatever is paid for does its share of the output
    for name in (_PAID[objective],) if objective in _PAID else ():
        if _both(first.terms, other.terms, name):
            ratios[name] = first.terms[name] / other.terms[name]
    spent = sum(first.tpot_ms.values()), sum(other.tpot_ms.values())
    if min(spent) > 0:
        ratios[_SECONDS] = spent[0] / spent[1]
    if not ratios:
        return ""
    name = min(ratios, key=lambda term: ratios[term])
    ratio = ratios[name]
    if ratio > 1 - _TIE:
        return ""
    if name == GPUS:
        return f"{other.terms[GPUS]:g} GPUs in use, not {first.terms[GPUS]:g}: whole replicas leave the others idle"
    if name == PRICE:
        return f"its GPUs cost ${other.terms[PRICE]:,.2f} an hour each, not ${first.terms[PRICE]:,.2f}"
    if name == WATTS:
        return f"its GPUs draw {other.terms[WATTS]:,.0f} W each, not {first.terms[WATTS]:,.0f}"
    if name == DECODING:
        return f"{other.terms[DECODING]:.0%} of its GPUs decode, not {first.terms[DECODING]:.0%}; the others prefill"
    if name == _SECONDS:
        part = _largest(first.tpot_ms, other.tpot_ms, first.mode)
        return f"TPOT is {1 / ratio:.2f} times that of {first.mode}, {part}"
    return f"{ratio:.2f} times as many requests run on a decoding GPU, {_held_by(first, other, slo)}"


def _held_by(first: ModeRow, other: ModeRow, slo: Mapping[str, object]) -> str:
    """What keeps more requests from running."""
    if other.terms.get(FULL, 0.0) >= _BINDS:
        return "as many as its memory holds"
    ttft, tpot = (float(str(slo.get(name) or "inf")) * 1e3 for name in ("ttft", "tpot"))
    if sum(other.ttft_ms.values()) >= _BINDS * ttft:
        return f"as TTFT is at its limit, {_largest(first.ttft_ms, other.ttft_ms, first.mode)}"
    decodes = sum(other.tpot_ms.values()) > 0  # not for outputs of one token
    if decodes and (math.isfinite(tpot) or slo.get("e2e")):
        return f"as its TPOT allows, {_largest(first.tpot_ms, other.tpot_ms, first.mode)}"
    return "as its prefill keeps up with no more"


def _latency(first: ModeRow, other: ModeRow) -> str:
    """The part of TTFT or TPOT that grows most against the better plan."""
    parts = []
    for name, one, two in (("TTFT", first.ttft_ms, other.ttft_ms), ("TPOT", first.tpot_ms, other.tpot_ms)):
        if sum(one.values()) > 0 and sum(two.values()) > 0:
            parts.append((sum(two.values()) / max(sum(one.values()), 1e-12), name, _largest(one, two, first.mode)))
    if not parts:
        return ""
    ratio, name, largest = max(parts)
    return f"{name} is {ratio:.2f} times that of {first.mode}, {largest}"


def _largest(first: Mapping[str, float], other: Mapping[str, float], mode: str) -> str:
    """The part of a sum of milliseconds that stands out most against another sum: by how much its share is larger."""
    whole, reference = sum(other.values()), sum(first.values())
    shares = {name: ms / whole - first.get(name, 0.0) / max(reference, 1e-12) for name, ms in other.items()}
    name = max(shares, key=lambda part: (shares[part], part))
    there = first.get(name, 0.0) / max(reference, 1e-12)
    return f"{other[name] / whole:.0%} of it {name} ({mode}: {there:.0%})"


def _both(first: Mapping[str, float], other: Mapping[str, float], name: str) -> bool:
    return first.get(name, 0.0) > 0 and other.get(name, 0.0) > 0



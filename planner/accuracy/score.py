"""Errors of predictions, and what choosing by them costs.

The same figures as other scorers of this kind: absolute percentage errors |predicted - measured|/measured, and the
quality of decisions. For every set of measured layouts and loads of one (model, GPU, precision, engine, lengths) and
four TPOT targets, 15 % above the quartiles of the measured ones, the planner picks the point of highest predicted
throughput that it predicts to keep the target; the quality is the measured throughput of its pick over the best that
kept the target, times target/TPOT where the pick misses it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from planner.accuracy.measured import Measured
from planner.serving.estimated import Estimate

SLACK = 1.15
QUARTILES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Error:
    """Errors of one quantity as shares: mean and median magnitude, median signed error, share within 20 %."""

    count: int
    mean: float
    median: float
    bias: float
    within_20: float


def error(pairs: Sequence[tuple[float, float]]) -> Error | None:
    """Error of (measured, predicted) pairs, None without any."""
    if not pairs:
        return None
    signed = [(ours - theirs) / theirs for theirs, ours in pairs]
    sizes = [abs(value) for value in signed]
    within = sum(size <= 0.2 for size in sizes) / len(sizes)
    return Error(len(pairs), fmean(sizes), median(sizes), median(signed), within)


def pairs_of(points: Iterable[Measured], estimates: Iterable[Estimate]) -> dict[str, list[tuple[float, float]]]:
    """(measured, predicted) by quantity."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for point, estimate in zip(points, estimates, strict=True):
        if estimate.status == "ok":
            for name, pair in point.pairs(estimate).items():
                found[name].append(pair)
    return found


@dataclass(frozen=True, slots=True)
class _Choice:
    """One measured operating point of a layout, and its prediction."""

    layout: tuple[int, ...]
    tpot: float
    rate: float
    predicted_tpot: float
    predicted_rate: float


def decisions(points: Sequence[Measured], estimates: Sequence[Estimate]) -> list[float]:
    """Quality of every decision, at most 1."""
    sets: dict[tuple[object, ...], list[_Choice]] = defaultdict(list)
    for measured, estimate in zip(points, estimates, strict=True):
        pairs = measured.pairs(estimate) if estimate.status == "ok" else {}
        if measured.point.mode == "aggregated" and {"tpot", "output_rate_per_gpu"} <= pairs.keys():
            p = measured.point
            (tpot, ours), (rate, our_rate) = pairs["tpot"], pairs["output_rate_per_gpu"]
            layout = (p.pool.tp, p.pool.pp, p.pool.attention_dp, p.pool.ep)
            key = (p.model, p.gpu, p.weights, p.engine, p.isl, p.osl)
            sets[key].append(_Choice(layout, tpot, rate, ours, our_rate))
    return [quality for choices in sets.values() for quality in _qualities(choices)]


def _qualities(choices: list[_Choice]) -> list[float]:
    if len({choice.layout for choice in choices}) < 2:
        return []
    tpots = sorted(choice.tpot for choice in choices)
    targets = [SLACK * tpots[max(0, math.ceil(q * len(tpots)) - 1)] for q in QUARTILES]
    return [_quality(choices, target) for target in targets]


def _quality(choices: list[_Choice], target: float) -> float:
    best = max(choice.rate for choice in choices if choice.tpot <= target)
    promising = [choice for choice in choices if choice.predicted_tpot <= target]
    if promising:
        pick = max(promising, key=lambda choice: choice.predicted_rate)
    else:
        pick = min(choices, key=lambda choice: choice.predicted_tpot)
    return min(1.0, pick.rate / best) * min(1.0, target / pick.tpot)

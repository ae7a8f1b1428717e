"""Statistics of a run as users measure them: percentiles, confidence intervals, goodput, stability."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from planner.simulation.simulator import Run
from planner.simulation.stability import Stability, judge

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BATCHES: Final = 20
STUDENT_95: Final = 2.093  # two-sided 95 % quantile of Student's t with 19 degrees of freedom


@dataclass(frozen=True, slots=True)
class Statistic:
    """Distribution of one latency (s); ``half_width`` is that of the 95 % confidence interval of the mean.

    The interval comes from 20 batch means in order of arrival, so that the correlation of neighbours in a
    queue is paid for; nan below 40 samples.
    """

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    half_width: float = math.nan


@dataclass(frozen=True, slots=True)
class Target:
    """Service-level objective (s): a request attains it if none of the given limits is passed."""

    ttft: float | None = None
    tpot: float | None = None
    end_to_end: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run says. Latencies are infinite if the system is unstable: they would grow with the length of the run.

    Attributes
    ----------
    ttft : arrival to first token; tpot : (end_to_end - ttft)/(output - 1) per request, requests of one token left
        out; itl : gaps between tokens, all tokens of the run alike; end_to_end; queued : all waits to be served.
    requests_per_s, output_tokens_per_s : completions per second while measured requests arrive.
    attainment, goodput : share of measured requests that attain the target, and those per second; nan without one.
    utilisation, mean_batch, kv_occupancy : busy share, decoding sequences and used share of the KV memory per
        replica, over the whole run.
    hit_share : share of prompt tokens found in the prefix cache.
    measured, warm_up : requests behind the statistics, left out before them.
    """

    ttft: Statistic
    tpot: Statistic
    itl: Statistic
    end_to_end: Statistic
    queued: Statistic
    requests_per_s: float
    output_tokens_per_s: float
    attainment: float
    goodput: float
    utilisation: float
    mean_batch: float
    kv_occupancy: float
    hit_share: float
    preemptions: int
    submitted: int
    finished: int
    refused: int
    measured: int
    warm_up: int
    interrupted: bool
    stability: Stability


def summarize(run: Run, target: Target | None = None, *, warm_up: float = 0.1) -> Summary:
    """Turn a run into statistics.

    Parameters
    ----------
    target : objective that attainment and goodput refer to.
    warm_up : share of the requests, first arrivals first, that is left out while queues and caches fill.
    """
    import numpy as np

    if not 0 <= warm_up < 1:
        raise ValueError("expected warm_up in [0, 1)")
    records = run.records
    arrival = np.asarray(records.arrival)
    order = np.lexsort((np.asarray(records.number), arrival))
    skip = int(warm_up * len(order))
    kept = order[skip:]
    ttft, total = np.asarray(records.ttft)[kept], np.asarray(records.end_to_end)[kept]
    output = np.asarray(records.output)[kept]
    several = output > 1
    tpot = (total[several] - ttft[several]) / (output[several] - 1)
    stability = judge(run)
    ended = arrival + np.asarray(records.end_to_end)
    rate, tokens = _completions(run, arrival[kept], ended, np.asarray(records.output))
    good = _attained(ttft, total, output, target) if target is not None and len(kept) else None
    utilisation, mean_batch, occupancy, hits = _averages(run)
    stats = [statistic(values, stability) for values in (ttft, tpot, total, np.asarray(records.queued)[kept])]
    return Summary(
        ttft=stats[0],
        tpot=stats[1],
        itl=_gap_statistic(run),
        end_to_end=stats[2],
        queued=stats[3],
        requests_per_s=rate,
        output_tokens_per_s=tokens,
        attainment=float(good.mean()) if good is not None else math.nan,
        goodput=float(good.mean()) * rate if good is not None else math.nan,
        utilisation=utilisation,
        mean_batch=mean_batch,
        kv_occupancy=occupancy,
        hit_share=hits,
        preemptions=run.preemptions,
        submitted=run.submitted,
        finished=run.finished,
        refused=run.refused,
        measured=len(kept),
        warm_up=skip,
        interrupted=run.interrupted,
        stability=stability,
    )


def _averages(run: Run) -> tuple[float, float, float, float]:
    """Busy share, decoding sequences and KV share per replica over the whole run; share of prompt tokens hit."""
    prompts = sum(run.records.prompt)
    hits = sum(run.records.hit_tokens) / prompts if prompts else 0.0
    span = run.end * run.replicas
    if not span:
        return math.nan, math.nan, math.nan, hits
    occupancy = run.kv_seconds / (run.end * run.kv_capacity) if run.kv_capacity else math.nan
    return run.busy / span, run.sequence_seconds / span, occupancy, hits


def statistic(values: Floats, stability: Stability) -> Statistic:
    """Mean, percentiles and batch-means interval of a sample in order of arrival."""
    import numpy as np

    if not len(values):
        return Statistic(math.nan, math.nan, math.nan, math.nan, math.nan)
    if not stability.stable:
        return Statistic(math.inf, math.inf, math.inf, math.inf, math.inf)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(values, (50, 90, 95, 99)))
    return Statistic(float(values.mean()), p50, p90, p95, p99, half_width(values))


def half_width(values: Floats) -> float:
    """Half of the 95 % confidence interval of the mean, t * s / sqrt(20), from 20 batch means."""
    import numpy as np

    size = len(values) // BATCHES
    if size < 2:
        return math.nan
    means = values[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    return float(STUDENT_95 * np.std(means, ddof=1) / math.sqrt(BATCHES))


def _gap_statistic(run: Run) -> Statistic:
    """Inter-token latency of all tokens; finite even under overload, where only queues grow."""
    gaps = run.token_gaps
    return Statistic(gaps.mean, *(gaps.quantile(share) for share in (0.5, 0.9, 0.95, 0.99)))


def _completions(run: Run, arrival: Floats, ended: Floats, output: NDArray[np.int64]) -> tuple[float, float]:
    """Requests and output tokens per second that end while measured requests still arrive: without the fill before and
    the drain after. A run that is over before that window has any width counts to its last completion."""
    if not len(arrival):
        return math.nan, math.nan
    start, end = float(arrival.min()), run.last_arrival
    inside = (ended > start) & (ended <= end)
    if not inside.any():
        end = float(ended.max())
        inside = ended > start
    span = end - start
    if span <= 0:
        return math.nan, math.nan
    return float(inside.sum()) / span, float(output[inside].sum()) / span


def _attained(ttft: Floats, total: Floats, output: NDArray[np.int64], target: Target) -> NDArray[np.bool_]:
    import numpy as np

    good = np.ones(len(ttft), dtype=bool)
    if target.ttft is not None:
        good &= ttft <= target.ttft
    if target.end_to_end is not None:
        good &= total <= target.end_to_end
    if target.tpot is not None:
        # A request of one token has no gap and attains any TPOT.
        good &= (total - ttft) <= target.tpot * (output - 1) + 1e-12
    return good

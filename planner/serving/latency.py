"""From steady state to what users measure: TTFT, TPOT and end-to-end at the mean and at percentiles.

Closed forms until the simulation checks them. TTFT runs from arrival to first token, TPOT is (end-to-end - TTFT) /
(output tokens - 1) of one request.

* Wait for prefill: M/D/1, E[W] = load*P/(2(1-load)) and P(W > t) = load*exp(-load*t/E[W]) (Pollaczek-Khinchine; the
  exponential tail is within +7 % at p95 and +11 % at p99 of a simulated M/D/1 at loads of .6 to .9, and above it at
  lower loads; pd_queueing.md). Plus half an iteration until the running one ends.
* TPOT of one request moves with the prompts that others bring during its life and with the running batch, whose
  fluctuation lasts as long as a request. Prompts that come lengthen the life, in which more come: a delay busy period,
  whose variance is lambda*P^2*T/(1-load)^2 for a life of mean T (Takacs; Kleinrock, Queueing Systems I, 5.9). With
  lambda*T = B that is a deviation of sqrt(B)/osl*P/(1-load); the batch is taken to swing with it.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from planner.job.slo import QUANTILE
from planner.serving.aggregated import OpenLoop, Steps
from planner.serving.engine import Engine
from planner.serving.layout import Array, floats

# Closer to saturation than that nothing is steady within the life of a request.
_LEAST_IDLE = 0.1
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def z_score(statistic: str) -> float:
    """Standard normal quantile of ``p95`` and the like; 0 for the mean."""
    return NormalDist().inv_cdf(QUANTILE[statistic]) if statistic in QUANTILE else 0.0


def wait(load: Array, service: Array, statistic: str) -> Array:
    """Seconds in the queue of an M/D/1 server at ``load`` < 1 with ``service`` seconds each; inf when overloaded."""
    stable = load < 1.0
    safe = np.where(stable, load, 0.5)
    mean = safe * service / (2 * (1 - safe))
    if statistic == "mean":
        seconds = mean
    else:
        tail = 1.0 - QUANTILE[statistic]
        seconds = np.where(safe > tail, mean / np.maximum(safe, 1e-12) * np.log(np.maximum(safe, tail) / tail), 0.0)
    return np.where(stable, seconds, np.inf)


def first_token_overhead(engine: Engine, tpot: Array, tokens: float = 1.0) -> Array:
    """Front end, and the iterations that pass before the client sees the token; each yields ``tokens``."""
    return np.asarray(engine.offset + engine.decode_steps * tpot * tokens)


def handed_over_overhead(engine: Engine, tpot: Array, tokens: float = 1.0) -> Array:
    """The same where another pool computed the prompt: the request also passes the decode worker's queues, one an
    iteration. Workers of a split look at their queues in every iteration: no published command for them, and none that
    we export, sets an interval.
    """
    steps = engine.handover_steps - 0.5 * (engine.receive_interval - 1.0)
    return np.asarray(first_token_overhead(engine, tpot, tokens) + steps * tpot * tokens)


def luck(tokens: float, variance: float, tpot: ArrayLike, osl: ArrayLike) -> Array:
    """Deviation of a request's seconds per token because drafts are accepted by chance: L tokens need a number of steps
    whose variance is L*variance/E^3 (renewal theory), each as long as any, so tpot*sqrt(variance/(E*L)) for E
    ``tokens`` of a step; 0 without speculation."""
    return np.asarray(floats(tpot) * np.sqrt(variance / tokens / np.maximum(floats(osl) - 1.0, 1.0)))


def open_loop_ttft(point: OpenLoop, engine: Engine, statistic: str) -> Array:
    """TTFT under Poisson arrivals: overhead + wait for earlier prompts + rest of the running iteration + own
    prefill.

    The overhead holds the mean wait for the scheduler to look at its queue; percentiles see its spread over the
    iterations between two looks.
    """
    queue = wait(point.prefill_load, point.steps.prefill, statistic)
    share = 0.5 if statistic == "mean" else QUANTILE[statistic]
    residual = point.steps.iteration * (share + (share - 0.5) * (engine.receive_interval - 1.0))
    return first_token_overhead(engine, point.tpot, point.steps.tokens) + queue + residual + point.steps.own_prefill


def open_loop_tpot(point: OpenLoop, osl: ArrayLike, statistic: str) -> Array:
    """TPOT of the request at a percentile of all requests."""
    s, z = point.steps, z_score(statistic)
    if z == 0.0:
        return point.tpot
    idle = np.maximum(1.0 - point.prefill_load, _LEAST_IDLE)
    spread = np.sqrt(s.batch) * (s.prefill / floats(osl) + point.batch_slope) / idle
    wide = point.tpot + z * np.hypot(spread, luck(s.tokens, s.variance, point.tpot, osl))
    return np.where(floats(osl) <= 1.0, 0.0, wide)


def slots_needed(batch: Array, statistic: str) -> Array:
    """Slots so that a request finds one free at its percentile: the occupancy of an unlimited server is Poisson, so
    B + z*sqrt(B) (square-root staffing)."""
    return np.ceil(batch + z_score(statistic) * np.sqrt(batch))


def closed_loop_ttft(s: Steps, tpot: Array, osl: ArrayLike, engine: Engine, statistic: str) -> Array:
    """TTFT with a constant number of requests in flight, long after its start.

    A finished request is replaced at once, so prompts rarely meet: the median is overhead plus the own prefill.
    """
    steady = first_token_overhead(engine, tpot, s.tokens) + s.own_prefill
    if statistic == "p50":
        return steady
    cycle = np.maximum(np.maximum(floats(osl) - 1.0, 0.0) * tpot, 1e-12)
    load = np.where(floats(osl) <= 1.0, 0.0, np.minimum(s.prefill * s.batch / cycle, 0.98))
    return steady + wait(load, s.prefill, statistic)


def opening_burst(s: Steps, engine: Engine) -> Array:
    """What the start of a load test adds to its mean TTFT: all prompts come at once, P*(B-1)/2 on average, spread over
    the rounds of the test (e2e_learnings, section 4).
    """
    return s.prefill * np.maximum(s.batch - 1, 0.0) / (2 * engine.burst_rounds)


def e2e(ttft: ArrayLike, tpot: ArrayLike, osl: ArrayLike) -> Array:
    """End-to-end seconds; at a percentile the two parts are taken as fully dependent, which is on the safe side."""
    return floats(ttft) + np.maximum(floats(osl) - 1.0, 0.0) * floats(tpot)

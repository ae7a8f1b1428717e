"""What the output and the latencies of a candidate are made of, to tell by which term two modes differ.

By Little's law output tokens/s = GPUs * share that decodes * running requests of a decoding GPU / TPOT (but for the
first token of each request), so the logarithms of two plans' ratios add up to that of their outputs. TPOT and TTFT are
sums of named seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.search.ranking import Candidate
from planner.serving.aggregated import steps
from planner.serving.iteration import Work, iteration_ledger
from planner.serving.latency import first_token_overhead
from planner.serving.layout import Array, Layouts, floats

GPUS, DECODING, RUNNING = "GPUs in use", "share of them that decodes", "running requests of a decoding GPU"
FULL = "share of the cache in use"
PRICE, WATTS = "US dollars per GPU and hour", "watts per GPU"
FACTORS = (GPUS, DECODING, RUNNING)
KERNELS, MESSAGES, PROMPTS = "decode kernels", "all-reduce and expert messages", "prefill of other requests"
QUEUE, OWN, REST = "queue for prefill", "own prefill", "first decode steps and front end"
_MESSAGES = ("all-reduce", "expert dispatch", "pipeline", "context exchange")


@dataclass(frozen=True, slots=True)
class Terms:
    """``factors`` of the output by name; milliseconds of the mean ``tpot`` and, at a percentile, of ``ttft``."""

    factors: dict[str, float]
    tpot: dict[str, float]
    ttft: dict[str, float]


def terms_of(c: Candidate, percentile: str) -> Terms:
    """Take a candidate apart."""
    decoding = sum(pool.gpus for pool in c.pools if pool.role != "prefill")
    running = c.per_replica.batch * c.ranks * c.instances
    factors = {
        GPUS: float(c.gpus), DECODING: decoding / c.gpus, RUNNING: running / decoding,
        FULL: c.per_replica.batch / max(c.slots, 1e-9), WATTS: sum(pool.power for pool in c.pools) / c.gpus,
    }  # fmt: skip
    if c.cost is not None:
        factors[PRICE] = c.cost / c.gpus
    tpot, ttft = c.per_replica.tpot["mean"], c.per_replica.ttft[percentile]
    parts = _aggregated(c, tpot, ttft) if c.mode == "aggregated" else _split(c, tpot, ttft, percentile)
    first, second = ({name: max(s, 0.0) * 1e3 for name, s in part.items()} for part in parts)
    return Terms(factors, first, second)


def _decode(c: Candidate, columns: Layouts, tpot: float) -> dict[str, float]:
    """The mean TPOT as decode kernels, messages between ranks, and what other requests' prompts add."""
    if tpot <= 0:  # outputs of one token
        return {KERNELS: 0.0, MESSAGES: 0.0, PROMPTS: 0.0}
    pp = c.layout.pp
    batch = max(c.per_replica.batch / pp, min(c.per_replica.batch, 1.0))
    ledger = iteration_ledger(c.replica, columns, Work(sequences=batch, context=c.lengths.decode_context))
    tokens = c.replica.tokens_per_step
    step = _one(ledger.total) / tokens
    sent = sum(_one(ledger.seconds[name]) for name in _MESSAGES if name in ledger.seconds) / tokens
    return {KERNELS: step - sent, MESSAGES: sent, PROMPTS: tpot - step}


def _aggregated(c: Candidate, tpot: float, ttft: float) -> tuple[dict[str, float], dict[str, float]]:
    columns = Layouts.of([c.layout])
    own = _one(steps(c.replica, columns, floats([[c.per_replica.batch]]), c.lengths).own_prefill)
    rest = _one(first_token_overhead(c.replica.engine, floats(tpot), c.replica.tokens_per_step))
    return _decode(c, columns, tpot), {QUEUE: ttft - own - rest, OWN: own, REST: rest}


def _split(c: Candidate, tpot: float, ttft: float, percentile: str) -> tuple[dict[str, float], dict[str, float]]:
    from planner.search.split_metrics import both_roles
    from planner.serving.pd import paired

    roles = both_roles(c)
    pair = paired(*roles, c.lengths)
    state = pair.open(floats([c.rate])) if c.concurrency is None else pair.closed(floats([c.concurrency]))
    parts = {name: _one(seconds) for name, seconds in state.first_token(percentile).items()}
    # Tables of D(B) are those of a whole pool in the search: what differs in the fourth digit is put here.
    parts[QUEUE] += ttft - sum(parts.values())
    if roles[1].blocks is not None:
        # Messages overlap with the kernels of other micro-batches: only the sum is anybody's time.
        return {KERNELS: tpot}, parts
    spent = _decode(c, Layouts.of([c.layout]), tpot)
    # No prompt interrupts these steps: what is left over is the error of interpolating between batches.
    return {KERNELS: spent[KERNELS] + spent[PROMPTS], MESSAGES: spent[MESSAGES]}, parts


def _one(values: Array) -> float:
    return float(np.ravel(values)[0])

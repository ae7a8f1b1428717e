"""Bounds of matches in a closed loop: N requests in flight over both pools.

By Little's law N = X * (TTFT + (osl-1) * D(B)), and B = X * (osl-1) * D(B) / ranks. A match carries no more than its
prefill pool when that never idles, and no more than its decode pool would beside a prefill pool without a queue.
"""

from __future__ import annotations

import numpy as np

from planner.job.job import Job
from planner.search.candidates import lengths_of
from planner.search.pools import DecodePool, PrefillPool
from planner.search.rate_matching import Indices, Matches, counts_allowed, least_first_token, matched
from planner.serving.decode import decode_rate
from planner.serving.layout import Array, Layouts

_BISECTIONS = 50


def loop_bounded(prefill: PrefillPool, decode: DecodePool, job: Job, thin: int | None = None) -> Matches:
    """All matches of two pools that GPUs and budget allow, with the most that each can carry in a closed loop."""
    assert job.workload.concurrency is not None
    i, n_prefill = counts_allowed(prefill, job, thin)
    j, n_decode = counts_allowed(decode, job, thin)
    least = least_first_token(prefill, decode, job) + prefill.times.rows(np.arange(len(prefill.gpus)), 1).own(0.0, 1.0)
    answer = lengths_of(job.workload).decodes * decode.alone[None, :]
    possible = np.ones_like(least, dtype=bool)
    if job.slo.ttft is not None:
        possible &= least <= job.slo.ttft * (1 + 1e-9)
    if job.slo.e2e is not None:
        possible &= least + answer <= job.slo.e2e * (1 + 1e-9)
    carried = _decode_most(decode, j, n_decode, least.min(axis=0, initial=np.inf), job.workload.concurrency, job)
    rate = np.minimum((n_prefill * prefill.capacity[i])[:, None], carried[None, :])
    rate = np.where(possible[i][:, j], rate, 0.0)
    return matched((prefill, i, n_prefill), (decode, j, n_decode), rate, least + answer, job)


def _decode_most(
    decode: DecodePool, j: Indices, count: Array, first: Array, concurrency: float, job: Job
) -> Array:
    """Requests/s of ``count`` replicas of layouts ``j`` where the first token comes after ``first`` seconds [layouts]:
    the fewest running decodes that account for everybody, no more than memory and TPOT limit allow."""
    lengths, table = lengths_of(job.workload), decode.table.rows(j)
    flat = Layouts.of([decode.family.layouts[k] for k in j], column=False)

    def rate(batch: Array) -> Array:
        settled = table.settled(batch)
        return decode_rate(flat, settled, table.at(settled), lengths) * count

    ranks, top = count * flat.attention_dp, decode.batch[j]
    low, high = np.zeros_like(top), top.copy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        enough = rate(middle) * first[j] + middle * ranks >= concurrency
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.asarray(rate(high) * (1 + 1e-9))

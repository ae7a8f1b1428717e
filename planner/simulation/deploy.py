"""From a costed replica to something the event loop can run: iteration times by table, memory in tokens, policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.serving.iteration import Work, iteration_seconds
from planner.serving.latency import first_token_overhead
from planner.serving.layout import Array, Layout, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.replica import Replica
from planner.simulation.settings import Deployment, EngineSettings, Policy, Pool, Routing
from planner.simulation.tabulated import TabulatedSteps

# The table continues linearly beyond this context, so longer requests are priced by the last slope.
_LONGEST = 32_768


@dataclass(frozen=True, slots=True)
class Served:
    """Equal replicas of one layout, the lengths that decide how many requests fit, and the attention ranks that carry a
    chunk when any does."""

    replica: Replica
    layout: Layout
    replicas: int
    lengths: Lengths
    together: float = 1.0


def step_model(served: Served) -> TabulatedSteps:
    """Iteration times of one attention rank of a replica, all ranks doing the same.

    The times come from ``serving.iteration`` alone; the KV capacity in tokens is that of requests of the asked lengths,
    so that windows and fixed state count as they do in the memory model.
    """
    replica, columns = served.replica, Layouts.of([served.layout], column=False)

    def iteration(sequences: Array, context: Array, chunk: Array, pairs: Array) -> Array:
        safe = np.maximum(chunk, 1.0)
        prefix = np.where(chunk > 0, np.maximum(pairs / safe - 0.5 * (chunk + 1.0), 0.0), 0.0)
        work = Work(sequences, context / np.maximum(sequences, 1.0), chunk, prefix, 1.0, served.together)
        return np.broadcast_to(iteration_seconds(replica, columns, work), sequences.shape)

    budget = memory(replica, columns, served.lengths)
    tokens = floats(served.lengths.decode_context if replica.engine.grows else served.lengths.total)
    capacity = float(budget.room[0]) / float(floats(budget.request).ravel()[0]) * float(tokens.ravel()[0])
    longest = int(min(max(float(floats(served.lengths.total).ravel()[0]) * 2, 1024), _LONGEST))
    return TabulatedSteps(
        iteration,
        kv_tokens=int(capacity),
        max_sequences=int(replica.engine.max_sequences),
        chunk_tokens=int(replica.engine.chunk_tokens),
        longest=longest,
    )


def deployment(served: Served, tpot: float, *, hash_tokens: int | None = None) -> Deployment:
    """An aggregated pool.

    ``tpot`` seconds prices the iterations that pass before a client sees its first token; ``hash_tokens`` tokens per
    hash id of a trace turns the prefix cache on, and routing that looks for it.
    """
    engine = served.replica.engine
    settings = EngineSettings(
        policy=Policy(engine.policy),
        token_budget=int(engine.chunk_tokens),
        block_tokens=engine.block_tokens,
        prefix_cache=bool(hash_tokens),
        hash_tokens=hash_tokens or engine.block_tokens,
    )
    return Deployment(
        Pool(
            steps=step_model(served),
            engine=settings,
            replicas=served.replicas,
            attention_dp=served.layout.attention_dp,
            stages=served.layout.pp,
            routing=Routing.PREFIX_AWARE if hash_tokens else Routing.LEAST_LOADED,
            offset=float(first_token_overhead(engine, floats(tpot))),
        )
    )

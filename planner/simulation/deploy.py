"""From a costed replica to something the event loop can run: iteration times by table, memory in tokens, policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.serving.iteration import Work, iteration_seconds
from planner.serving.latency import first_token_overhead
from planner.serving.layout import Array, Layout, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import Memory, memory, most_sequences
from planner.serving.replica import Replica
from planner.simulation.settings import Deployment, Drafts, EngineSettings, Policy, Pool, Routing
from planner.simulation.steps import StepModel
from planner.simulation.tables import Tables
from planner.simulation.tabulated import RankedSteps, TabulatedSteps

if TYPE_CHECKING:
    from planner.serving.afd import AttentionFfn, Workers
    from planner.simulation.tabulated import Iteration

# The table continues linearly beyond this context, so longer requests are priced by the last slope.
_LONGEST = 32_768


@dataclass(frozen=True, slots=True)
class Served:
    """Equal replicas of one layout and the lengths that decide how many requests fit.

    With ``blocks`` each replica is a model split over attention and feed-forward workers, and the layout that of all
    its attention workers. ``ranks`` of each replica are simulated, None for all. ``planned`` replicas stand in the
    deployment, None for those that are simulated.
    """

    replica: Replica
    layout: Layout
    replicas: int
    lengths: Lengths
    blocks: tuple[AttentionFfn, Workers] | None = None
    ranks: int | None = None
    planned: int | None = None

    @property
    def simulated_ranks(self) -> int:
        """Attention ranks of a replica that are simulated; the others do the same as they."""
        return self.layout.attention_dp if self.ranks is None else self.ranks


def step_model(served: Served, *, stages: int = 1) -> StepModel:
    """Iteration times of one attention rank of a replica; all ranks decode alike, prompts may be on some of them only.

    The times come from ``serving.iteration`` alone; the KV capacity in tokens is that of requests of the asked lengths,
    so that windows and fixed state count as they do in the memory model. With ``stages`` an iteration is over when its
    first stage is free again.
    """
    replica, columns = served.replica, Layouts.of([served.layout], column=False)

    def times(carrying: int) -> TabulatedSteps:
        def iteration(sequences: Array, context: Array, chunk: Array, pairs: Array) -> Array:
            safe = np.maximum(chunk, 1.0)
            prefix = np.where(chunk > 0, np.maximum(pairs / safe - 0.5 * (chunk + 1.0), 0.0), 0.0)
            work = Work(sequences, context / np.maximum(sequences, 1.0), chunk, prefix, 1.0, float(carrying))
            return np.broadcast_to(iteration_seconds(replica, columns, work) / stages, sequences.shape)

        return tabulated(served, iteration, budget)

    budget, ranks = memory(replica, columns, served.lengths), served.layout.attention_dp
    return RankedSteps(times(1), times(ranks), ranks) if ranks > 1 and replica.has_experts else times(1)


def tabulated(served: Served, iteration: Iteration, budget: Memory) -> TabulatedSteps:
    """The table of an iteration of a replica, with the limits of its engine and memory."""
    replica = served.replica
    tokens = floats(served.lengths.decode_context if replica.engine.grows else served.lengths.total)
    # The bytes of a request are those of whole blocks, and the simulation hands out whole blocks again.
    held = math.ceil(float(tokens.ravel()[0]) / replica.engine.block_tokens) * replica.engine.block_tokens
    capacity = float(budget.room[0]) / float(floats(budget.request).ravel()[0]) * held
    longest = int(min(max(float(floats(served.lengths.total).ravel()[0]) * 2, 1024), _LONGEST))
    return TabulatedSteps(
        iteration,
        kv_tokens=int(capacity),
        max_sequences=int(np.min(most_sequences(replica, Layouts.of([served.layout], column=False)))),
        chunk_tokens=int(replica.engine.chunk_tokens),
        longest=longest,
    )


def deployment(
    served: Served, tpot: float, *, hash_tokens: int | None = None, tables: Tables | None = None
) -> Deployment:
    """An aggregated pool.

    ``tpot`` seconds prices the iterations that pass before a client sees its first token; ``hash_tokens`` tokens per
    hash id of a trace turns the prefix cache on, and routing that looks for it; ``tables`` are those of earlier
    deployments, to which its own are added.
    """
    steps = (Tables() if tables is None else tables).get("aggregated", step_model, served)
    engine = served.replica.engine
    looks = int(engine.receive_interval) if engine.prefill == "exclusive" else 1
    return Deployment(pool(served, steps, tpot, hash_tokens, looks=looks))


def pool(served: Served, steps: StepModel, tpot: float, hash_tokens: int | None, *, looks: int = 1) -> Pool:
    """Equal replicas behind a router that prefers the least loaded, or the one that holds the prefix; ``looks``
    iterations pass between two looks of the scheduler at its queue.
    """
    engine, how = served.replica.engine, served.replica.speculation
    tokens = served.replica.tokens_per_step
    overhead = float(first_token_overhead(engine, floats(tpot), tokens))
    settings = EngineSettings(
        policy=Policy(engine.policy),
        token_budget=int(engine.chunk_tokens),
        block_tokens=engine.block_tokens,
        prefix_cache=bool(hash_tokens),
        hash_tokens=hash_tokens or engine.block_tokens,
        receive_interval=looks,
    )
    return Pool(
        steps=steps,
        engine=settings,
        replicas=served.replicas,
        attention_dp=served.simulated_ranks,
        stages=served.layout.pp,
        routing=Routing.PREFIX_AWARE if hash_tokens else Routing.LEAST_LOADED,
        offset=overhead,
        look_wait=min(0.5 * (looks - 1) * tpot * tokens, overhead),
        drafts=None if how is None else Drafts(how.tokens_per_step, how.variance, how.tokens + 1),
    )

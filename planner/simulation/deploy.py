"""From a costed replica to something the event loop can run: iteration times by table, memory in tokens, policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from planner.serving.afd import AttentionFfn, Workers, barrier
from planner.serving.iteration import Work, iteration_seconds
from planner.serving.latency import first_token_overhead, handed_over_overhead
from planner.serving.layout import Array, Layout, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.memory import memory
from planner.serving.pd import Role, handover
from planner.serving.prefill import prefill_times
from planner.serving.replica import Replica
from planner.serving.transfer import TransferOptions
from planner.simulation.settings import Deployment, Drafts, EngineSettings, Policy, Pool, Routing
from planner.simulation.tabulated import TabulatedSteps

# The table continues linearly beyond this context, so longer requests are priced by the last slope.
_LONGEST = 32_768
_TRANSFER_KNOTS = 32


@dataclass(frozen=True, slots=True)
class Served:
    """Equal replicas of one layout, the lengths that decide how many requests fit, and the attention ranks that carry a
    chunk when any does; with ``blocks`` each replica is a model split over attention and feed-forward workers, and the
    layout that of all its attention workers. ``ranks`` of each replica are simulated, None for all."""

    replica: Replica
    layout: Layout
    replicas: int
    lengths: Lengths
    together: float = 1.0
    blocks: tuple[AttentionFfn, Workers] | None = None
    ranks: int | None = None

    @property
    def simulated_ranks(self) -> int:
        """Attention ranks of a replica that are simulated; the others do the same as they."""
        return self.layout.attention_dp if self.ranks is None else self.ranks


def split_model(split: tuple[AttentionFfn, Workers], lengths: Lengths) -> Served:
    """One replica made of attention and feed-forward workers."""
    both, workers = split
    layout = Layout(int(workers.attention_tp[0]), int(workers.ranks[0]))
    return Served(both.attention, layout, 1, lengths, blocks=split)


def step_model(served: Served, *, stages: int = 1) -> TabulatedSteps:
    """Iteration times of one attention rank of a replica, all ranks doing the same.

    The times come from ``serving.iteration`` alone; the KV capacity in tokens is that of requests of the asked lengths,
    so that windows and fixed state count as they do in the memory model. With ``stages`` an iteration is over when its
    first stage is free again.
    """
    replica, columns = served.replica, Layouts.of([served.layout], column=False)
    blocks = served.blocks

    def iteration(sequences: Array, context: Array, chunk: Array, pairs: Array) -> Array:
        if blocks is not None:
            waiting = _unseen(blocks[1], served, sequences)
            return _micro_batches(*blocks, (sequences, context, chunk, pairs), waiting)
        safe = np.maximum(chunk, 1.0)
        prefix = np.where(chunk > 0, np.maximum(pairs / safe - 0.5 * (chunk + 1.0), 0.0), 0.0)
        work = Work(sequences, context / np.maximum(sequences, 1.0), chunk, prefix, 1.0, served.together)
        return np.broadcast_to(iteration_seconds(replica, columns, work) / stages, sequences.shape)

    budget = memory(replica, columns, served.lengths) if blocks is None else blocks[0].held(blocks[1], served.lengths)
    tokens = floats(served.lengths.decode_context if replica.engine.grows else served.lengths.total)
    # The bytes of a request are those of whole blocks, and the simulation hands out whole blocks again.
    held = math.ceil(float(tokens.ravel()[0]) / replica.engine.block_tokens) * replica.engine.block_tokens
    capacity = float(budget.room[0]) / float(floats(budget.request).ravel()[0]) * held
    longest = int(min(max(float(floats(served.lengths.total).ravel()[0]) * 2, 1024), _LONGEST))
    return TabulatedSteps(
        iteration,
        kv_tokens=int(capacity),
        max_sequences=int(replica.engine.max_sequences),
        chunk_tokens=int(replica.engine.chunk_tokens),
        longest=longest,
    )


def _micro_batches(
    split: AttentionFfn, workers: Workers, work: tuple[Array, Array, Array, Array], waiting: Array
) -> Array:
    """Seconds of an iteration in which every attention rank has the load of the fullest one, cut evenly into the
    micro-batches.

    Prompt tokens come only where a preempted request is computed again, one rank at a time; they go through the workers
    as decodes at the context that each of them attends to.
    """
    sequences, context, chunk, pairs = work
    tokens = sequences + chunk
    mean = (context + pairs) / np.maximum(tokens, 1.0)
    every = (sequences * workers.ranks + chunk) / workers.micro_batches
    stages = split.stages_of(workers, tokens / workers.micro_batches, every, mean, waiting)
    return np.broadcast_to(stages.iteration(workers.micro_batches), sequences.shape)


def _unseen(workers: Workers, served: Served, sequences: Array) -> Array:
    """How much slower the slowest of all attention ranks is than the slowest of those that are simulated."""
    own = sequences / workers.micro_batches
    seen = barrier(own, np.array([float(served.simulated_ranks)]), served.lengths)
    return barrier(own, workers.ranks, served.lengths) / seen


def deployment(served: Served, tpot: float, *, hash_tokens: int | None = None) -> Deployment:
    """An aggregated pool.

    ``tpot`` seconds prices the iterations that pass before a client sees its first token; ``hash_tokens`` tokens per
    hash id of a trace turns the prefix cache on, and routing that looks for it.
    """
    engine = served.replica.engine
    looks = int(engine.receive_interval) if engine.prefill == "exclusive" else 1
    return Deployment(_pool(served, tpot, hash_tokens, looks=looks))


def split_deployment(prefill: Served, decode: Served, tpot: float, *, hash_tokens: int | None = None) -> Deployment:
    """A prefill pool that hands its KV to a decode pool; prefixes are looked for where prompts are computed."""
    overhead = float(handed_over_overhead(decode.replica.engine, floats(tpot), decode.replica.tokens_per_step))
    first = _pool(prefill, tpot, hash_tokens, looks=1)
    # Prompts follow each other through the stages: the first stage is the server, the way through the others a delay.
    steps = step_model(prefill, stages=prefill.layout.pp)
    first = replace(first, steps=steps, stages=1, offset=overhead)
    moved = transfer_by_tokens(prefill, decode)
    return Deployment(_pool(decode, tpot, None, looks=1), first, moved, answers_after_transfer=True)


def transfer_by_tokens(prefill: Served, decode: Served) -> Callable[[int], float]:
    """Seconds from the end of the first pipeline stage until the cache of a prompt of so many computed tokens has
    arrived; tokens of prefix hits travel too.
    """
    lengths = decode.lengths
    share = float((floats(lengths.isl) / lengths.new).ravel()[0])
    computed = np.geomspace(16.0, 2.0**18, _TRANSFER_KNOTS)
    sizes = Lengths(computed * share, 1.0, computed * (share - 1.0))
    sender, receiver = (
        Role(p.replica, Layouts.of([p.layout], column=False), np.array([float(p.replicas)]), p.blocks)
        for p in (prefill, decode)
    )
    times = prefill_times(prefill.replica, sender.layouts, sizes)
    link = handover(sender, receiver, sizes, times.chunks, TransferOptions())
    through = times.own(0.0) * (1.0 - 1.0 / times.stretch)
    seconds = link.seconds(0.0, times.own(0.0)) + through
    return lambda tokens: float(np.interp(tokens, computed, seconds))


def _pool(served: Served, tpot: float, hash_tokens: int | None, *, looks: int) -> Pool:
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
        steps=step_model(served),
        engine=settings,
        replicas=served.replicas,
        attention_dp=served.simulated_ranks,
        stages=served.layout.pp,
        routing=Routing.PREFIX_AWARE if hash_tokens else Routing.LEAST_LOADED,
        offset=overhead,
        look_wait=min(0.5 * (looks - 1) * tpot * tokens, overhead),
        drafts=None if how is None else Drafts(how.tokens_per_step, how.variance, how.tokens + 1),
    )

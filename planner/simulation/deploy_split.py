"""Splits as something that the event loop can run: a prefill pool, a decode pool of whole or split models, and the
transfer of caches between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np

from planner.serving.afd import AttentionFfn, Workers, barrier
from planner.serving.latency import handed_over_overhead
from planner.serving.layout import Array, Layout, Layouts, floats
from planner.serving.lengths import Lengths
from planner.serving.pd import Role, handover
from planner.serving.prefill import prefill_times
from planner.serving.transfer import TransferOptions
from planner.simulation.deploy import Served, pool, step_model, tabulated
from planner.simulation.links import Transfer
from planner.simulation.settings import Deployment, Policy
from planner.simulation.steps import StepModel
from planner.simulation.tables import Tables

_TRANSFER_KNOTS = 32


def split_model(split: tuple[AttentionFfn, Workers], lengths: Lengths) -> Served:
    """One replica made of attention and feed-forward workers."""
    both, workers = split
    layout = Layout(int(workers.attention_tp[0]), int(workers.ranks[0]))
    return Served(both.attention, layout, 1, lengths, blocks=split)


def decode_steps(served: Served) -> StepModel:
    """Iteration times of one attention rank of a decode replica: of whole models, or of one that is split."""
    blocks = served.blocks
    if blocks is None:
        return step_model(served)

    def iteration(sequences: Array, context: Array, chunk: Array, pairs: Array) -> Array:
        waiting = _unseen(blocks[1], served, sequences)
        return _micro_batches(*blocks, (sequences, context, chunk, pairs), waiting)

    return tabulated(served, iteration, blocks[0].held(blocks[1], served.lengths))


def _micro_batches(
    split: AttentionFfn, workers: Workers, work: tuple[Array, Array, Array, Array], waiting: Array
) -> Array:
    """Seconds of an iteration in which every attention rank has the load of the fullest one, cut evenly into the
    micro-batches.

    Prompt tokens come only where a preempted request is computed again, one rank at a time; they go through the workers
    as decodes at the context that each of them attends to, as many at once as a decode has tokens to check.
    """
    sequences, context, chunk, pairs = work
    width = split.attention.verified
    own = sequences + chunk / width
    mean = (context + pairs / width) / np.maximum(own, 1.0)
    every = (sequences * workers.ranks + chunk / width) / workers.micro_batches
    stages = split.stages_of(workers, own / workers.micro_batches, every, mean, waiting)
    return np.broadcast_to(stages.iteration(workers.micro_batches), sequences.shape)


def _unseen(workers: Workers, served: Served, sequences: Array) -> Array:
    """How much slower the slowest of all attention ranks is than the slowest of those that are simulated."""
    own = sequences / workers.micro_batches
    seen = barrier(own, np.array([float(served.simulated_ranks)]), served.lengths)
    return barrier(own, workers.ranks, served.lengths) / seen


def split_deployment(
    prefill: Served, decode: Served, tpot: float, *, hash_tokens: int | None = None, tables: Tables | None = None
) -> Deployment:
    """A prefill pool that hands its KV to a decode pool; prefixes are looked for where prompts are computed. ``tables``
    are those of earlier deployments, to which its own are added."""
    tables = Tables() if tables is None else tables
    computing = tables.get("prefill", lambda first: step_model(_prefilling(first), stages=first.layout.pp), prefill)
    overhead = float(handed_over_overhead(decode.replica.engine, floats(tpot), decode.replica.tokens_per_step))
    # Prompts follow each other through the stages: the first one is the server, the way through the others a delay, as
    # long as all that went along takes there.
    first = pool(_prefilling(prefill), computing, tpot, hash_tokens)
    # Whatever the engine holds back for outputs, a prefill worker generates none.
    alone = replace(first.engine, policy=Policy.VLLM)
    first = replace(first, stages=1, offset=overhead, engine=alone)
    counts = [p.planned or p.replicas for p in (prefill, decode)]
    return Deployment(
        pool(decode, tables.get("decode", decode_steps, decode), tpot, None), first,
        tables.get(("transfer", *counts), transfer_of, prefill, decode), answers_after_transfer=True,
    )  # fmt: skip


def _prefilling(served: Served) -> Served:
    """The same replicas as prefill workers."""
    return replace(served, replica=served.replica.prefilling)


def transfer_of(prefill: Served, decode: Served) -> Callable[[int], Transfer]:
    """How the cache of a prompt of so many tokens travels once its first pipeline stage is done; tokens of prefix hits
    travel too. Whether the pools share a scale-up domain depends on the whole deployment, not on the simulated part.
    """
    lengths = decode.lengths
    hit = float((floats(lengths.cached) / floats(lengths.isl)).ravel()[0])
    tokens = np.geomspace(16.0, 2.0**18, _TRANSFER_KNOTS)
    sizes = Lengths(tokens, 1.0, tokens * hit)
    sender, receiver = (
        Role(p.replica, Layouts.of([p.layout], column=False), np.array([float(p.planned or p.replicas)]), p.blocks)
        for p in (prefill, decode)
    )
    times = prefill_times(prefill.replica, sender.layouts, sizes)
    link = handover(sender, receiver, sizes, times.chunks, TransferOptions())
    own = times.own(0.0, 1.0)
    columns = (link.sending.egress, link.sending.ingress, own, link.pieces, np.array(prefill.layout.pp - 1.0))
    curves = [np.broadcast_to(column, tokens.shape) for column in columns]

    @lru_cache(maxsize=4096)
    def transfer(prompt: int) -> Transfer:
        return Transfer(*(float(np.interp(prompt, tokens, curve)) for curve in curves))

    return transfer

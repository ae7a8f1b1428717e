"""Pipelines whose stages stand on two GPU types, as units of the exact mixture.

How many layers each stage holds is decided by the exact partition (layer_partition.py): least time of the slowest stage
with so many stages of each type, every layer with its own seconds and bytes (dense and expert layers, the embedding on
the first stage, the head on the last) and the hops between stages. The cost of a layer is what a micro-batch of a given
size takes, prompts included, so the best cut depends on the load: a few sizes are tried. What comes out is evaluated as
any other replica is, and kept where it carries more than smaller units on the same GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np

from planner.architecture.model import Model
from planner.job.job import Job
from planner.search.candidates import Family, best_batches, lengths_of, metrics_of
from planner.search.layer_partition import Partition, StageType, fastest_partition
from planner.search.ranking import Candidate, Share
from planner.search.reject import Rejections
from planner.search.supply import Supply
from planner.search.unit_table import WORTH, UnitTable
from planner.serving.engine import Engine
from planner.serving.iteration import Work, iteration_ledger
from planner.serving.layout import Array, Layout, Layouts
from planner.serving.legality import shape_problem
from planner.serving.memory import activation_bytes_per_gpu, memory, request_bytes_per_gpu, weight_bytes_per_gpu
from planner.serving.precision import kv_choices, weight_choices
from planner.serving.replica import Replica, Stage
from planner.serving.stages import hop_seconds, staged_layout

MOST_GPUS = 8
"""GPUs of one type in a pipeline."""
MOST_STAGES = 6
_WIDTHS = (1, 2, 4, 8)
# Pipelines on the same numbers of GPUs that are evaluated in full, those with the fastest slowest stage.
_TRIED = 3
_MICRO_BATCHES = np.geomspace(0.25, 256.0, 21)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A replica with stages on two GPU types, and the $/h of its GPUs (None: a price is unknown)."""

    replica: Replica
    price: float | None

    @property
    def name(self) -> str:
        """Its stages and precisions."""
        r = self.replica
        return f"layers {' | '.join(str(stage) for stage in r.stages)} {r.weights} kv {r.kv}"

    @property
    def gpus(self) -> dict[str, int]:
        """GPUs by type."""
        found: dict[str, int] = {}
        for stage in self.replica.stages:
            found[stage.gpu] = found.get(stage.gpu, 0) + stage.tp
        return found


def worthwhile_pipelines(
    model: Model, engine: Engine, supplies: Sequence[Supply], job: Job, whole: Iterable[tuple[str, int, float]]
) -> list[Pipeline]:
    """Pipelines over two GPU types of one vendor that carry more than smaller units on the same GPUs.

    ``whole`` lists the other units as (GPU type, GPUs, requests/s).
    """
    units = list(whole)
    kept: list[Pipeline] = []
    for first, second in combinations(sorted(supplies, key=lambda s: s.accelerator.id), 2):
        if first.accelerator.vendor != second.accelerator.vendor:
            continue
        table: UnitTable[Pipeline] = UnitTable(MOST_GPUS)
        for axis, supply in enumerate((first, second)):
            for gpu, size, rate in units:
                if gpu == supply.accelerator.id and size <= MOST_GPUS:
                    table.offer((size, 0) if axis == 0 else (0, size), rate)
        tried: Counter[tuple[int, int]] = Counter()
        guesses = _partitions(model, engine, first, second, job, table.closed())
        for pipeline, _ in sorted(guesses, key=lambda pair: -pair[1]):
            cell = (pipeline.gpus[first.accelerator.id], pipeline.gpus[second.accelerator.id])
            tried[cell] += 1
            if tried[cell] <= _TRIED:
                table.offer(cell, _most(pipeline, job), pipeline)
        kept += table.worthwhile()
    return kept


def pipeline_capacity(pipeline: Pipeline, job: Job) -> Candidate | None:
    """One copy of a pipeline at the highest Poisson rate of the job's request that keeps the limits; None if none."""
    family = _family(pipeline, job)
    if family is None:
        return None
    batch, rate, point = best_batches(family, job.slo, Rejections())
    if not np.isfinite(rate[0]):
        return None
    (metrics,) = metrics_of(family, batch, point)
    (layout,), lengths, slots = family.layouts, family.lengths, family.held(family.memory.slots, 0)
    pool = Share("aggregated", pipeline.replica, layout, 1, metrics.batch, slots, family.gpu_memory(0), None)
    if pipeline.price is not None:
        pool = replace(pool, price=pipeline.price / pool.gpus)
    return Candidate((pool,), 0, metrics.rate, job.workload.osl, metrics, lengths)


def _family(pipeline: Pipeline, job: Job) -> Family | None:
    """The pipeline as a family of one layout; None where it does not fit in memory."""
    layout, lengths = staged_layout(pipeline.replica.stages), lengths_of(job.workload)
    columns = Layouts.of([layout])
    budget = memory(pipeline.replica, columns, lengths)
    return Family(pipeline.replica, (layout,), columns, budget, lengths) if budget.fits.item() else None


def _most(pipeline: Pipeline, job: Job) -> float:
    """Requests/s of one copy; 0 where no load keeps the limits."""
    family = _family(pipeline, job)
    rate = 0.0 if family is None else float(best_batches(family, job.slo, Rejections())[1][0])
    return rate if np.isfinite(rate) else 0.0


def _partitions(
    model: Model, engine: Engine, first: Supply, second: Supply, job: Job, floor: Array
) -> Iterable[tuple[Pipeline, float]]:
    """Distinct pipelines with stages on both types that may carry more than ``floor`` [GPUs of first, of second], and
    the requests/s that their slowest stage passes at the load they were cut for."""
    found: dict[str, tuple[Pipeline, float]] = {}
    for pair in _replicas(model, engine, first, second, job):
        bars = [[_Bar(r, tp, job) for tp in _WIDTHS if _cuts(r, tp, model)] for r in pair]
        for a, b in product(*bars):
            sends: dict[int, dict[tuple[str, str], float]] = {}
            for x, y in product(range(1, MOST_GPUS // a.tp + 1), range(1, MOST_GPUS // b.tp + 1)):
                cell = (x * a.tp, y * b.tp)
                if x + y > MOST_STAGES or cell[0] > first.count or cell[1] > second.count:
                    continue
                for load in _loads(a, b, x, y, job, float(floor[cell])):
                    if load not in sends:
                        sends[load] = _sends(a, b, float(_MICRO_BATCHES[load]))
                    split = fastest_partition((a.stages(x, load, x + y), b.stages(y, load, x + y)), sends[load])
                    if split is not None and len(split.counts) > 1:
                        pipeline = Pipeline(_staged(split, {a.id: a, b.id: b}), _price(split, (a, first), (b, second)))
                        guess = float(_MICRO_BATCHES[load] / (a.lengths.decodes * split.bottleneck))
                        found[pipeline.name] = pipeline, max(guess, found.get(pipeline.name, (pipeline, 0.0))[1])
    return found.values()


def _loads(a: _Bar, b: _Bar, x: int, y: int, job: Job, floor: float) -> list[int]:
    """Sizes of micro-batches, by index, at which x stages on ``a`` and y on ``b`` may carry more than ``floor``.

    Were layers divisible, a stage would hold the share of the model that it passes in t seconds, so t >= 1/(x/T_a +
    y/T_b) with T the seconds of all layers; the cache of all micro-batches must fit likewise, and the mean TPOT is
    (x+y)*t. Of the sizes that pass, that with the highest such rate and a third of it.
    """
    requests = (x + y) * _MICRO_BATCHES
    ideal = 1.0 / (x / a.seconds.sum(axis=0) + y / b.seconds.sum(axis=0))
    held = x * a.room / a.bytes_for(requests) + y * b.room / b.bytes_for(requests)
    rate = np.where(held >= 1.0, _MICRO_BATCHES / (float(a.lengths.decodes) * ideal), 0.0)
    limit = job.slo.limits.get("tpot")
    if limit is not None:
        rate = np.where((x + y) * ideal <= limit, rate, 0.0)
    best = int(rate.argmax())
    if rate[best] <= floor * (1 + WORTH):
        return []
    third = int(np.abs(_MICRO_BATCHES - _MICRO_BATCHES[best] / 3).argmin())
    return [best] if third == best or rate[third] <= 0 else [best, third]


def _replicas(
    model: Model, engine: Engine, first: Supply, second: Supply, job: Job
) -> Iterator[tuple[Replica, Replica]]:
    """The model on both types at one precision: stages pass activations on and keep caches of one kind."""
    choices = []
    for supply in (first, second):
        served = supply.engine or engine.on(supply.accelerator.vendor)
        formats = [
            (weights, kv)
            for weights in weight_choices(model, supply.accelerator, job.weights)
            for kv in kv_choices(supply.accelerator, weights, job.kv, engine)
        ]
        choices.append((supply, served, formats))
    for weights, kv in choices[0][2]:
        if (weights, kv) in choices[1][2]:
            a, b = (Replica(model, s.accelerator, s.efficiency, served, weights, kv) for s, served, _ in choices)
            yield a, b


def _cuts(replica: Replica, tp: int, model: Model) -> bool:
    inside = tp <= min(replica.topology.domain_size, MOST_GPUS)
    return inside and shape_problem(model, Layout(tp)) is None


class _Bar:
    """Layers of a model on one tensor-parallel group.

    ``seconds`` [layers, sizes of micro-batches] that a micro-batch keeps a layer busy per token of its requests,
    prompts in proportion, D + m/(osl-1) P; ``weight`` and ``cache`` [layers] bytes of the weights, and of one request.
    """

    def __init__(self, replica: Replica, tp: int, job: Job) -> None:
        self.replica, self.tp, self.lengths = replica, tp, lengths_of(job.workload)
        self.id = f"{replica.accelerator.id} tp{tp}"
        self.layouts = Layouts.of([Layout(tp)])
        engine, capacity = replica.engine, replica.accelerator.memory
        used = float(activation_bytes_per_gpu(replica, self.layouts).max()) + engine.reserve
        self.room = capacity - used if engine.of_free else engine.utilization_ceiling * capacity - used
        layers = replica.model.layers
        inner = {layer: self._layer(i) for layer, i in {layer: i for i, layer in enumerate(layers)}.items()}
        rows = [inner[layer] for layer in layers]
        rows[0], rows[-1] = self._layer(0, embeds=True), self._layer(len(layers) - 1, samples=True)
        self.seconds = np.stack([row[0] for row in rows])
        self.weight = np.array([row[1] for row in rows])
        self.cache = np.array([row[2] for row in rows])

    def bytes_for(self, requests: Array) -> Array:
        """Bytes of all layers with the caches of so many requests."""
        return np.asarray(self.weight.sum() + self.cache.sum() * requests)

    def stages(self, count: int, load: int, together: int) -> StageType:
        """``count`` such groups of ``together`` stages in all, at the size of micro-batches with that index."""
        sizes = self.weight + self.cache * float(np.maximum(_MICRO_BATCHES[load] * together, 1.0))
        return StageType(
            self.id, count, tuple(self.seconds[:, load].tolist()), tuple(sizes.tolist()), self.room, float(self.tp)
        )

    @property
    def stage(self) -> Stage:
        """A stage of this kind with all layers, to ask for its links."""
        return Stage(self.replica, self.tp, 0, len(self.replica.model.layers))

    def _layer(self, index: int, *, embeds: bool = False, samples: bool = False) -> tuple[Array, float, float]:
        replica = replace(self.replica.part(index, index + 1), embeds=embeds, samples=samples)
        new, decodes = float(self.lengths.new), float(self.lengths.decodes)
        chunk = min(new, replica.engine.chunk_tokens)
        decode = self._busy(replica, Work(sequences=_MICRO_BATCHES, context=self.lengths.decode_context))
        prompt = self._busy(replica, Work(chunk=chunk, prefix=(new - chunk) / 2)) * (new / chunk)
        seconds = np.broadcast_to(decode + _MICRO_BATCHES / decodes * prompt, _MICRO_BATCHES.shape)
        tokens = self.lengths.decode_context if replica.engine.grows else self.lengths.total
        cache = request_bytes_per_gpu(replica, self.layouts, tokens)
        return seconds, float(weight_bytes_per_gpu(replica, self.layouts).max()), float(cache.max())

    def _busy(self, replica: Replica, work: Work) -> Array:
        ledger = iteration_ledger(replica, self.layouts, work)
        return np.ravel(ledger.total - ledger.seconds["host"])


def _sends(a: _Bar, b: _Bar, micro: float) -> dict[tuple[str, str], float]:
    """Seconds of a hop between stages of these kinds, for a micro-batch and its share of prompts."""
    tokens = np.array([micro + micro / float(a.lengths.decodes) * float(a.lengths.new)])
    return {(x.id, y.id): float(hop_seconds(x.stage, y.stage, tokens).max()) for x, y in product((a, b), repeat=2)}


def _staged(split: Partition, bars: dict[str, _Bar]) -> Replica:
    stages = tuple(
        Stage(bars[s.type].replica.part(s.first, s.end), bars[s.type].tp, s.first, s.end) for s in split.stages
    )
    return replace(bars[split.stages[0].type].replica, stages=stages)


def _price(split: Partition, *kinds: tuple[_Bar, Supply]) -> float | None:
    """$/h of the GPUs of a partition."""
    total = 0.0
    for bar, supply in kinds:
        if supply.price is None:
            return None
        total += split.counts.get(bar.id, 0) * bar.tp * supply.price
    return total

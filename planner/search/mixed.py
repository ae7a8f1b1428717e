"""Mixtures of unequal replicas and GPU types: the layouts of the search become templates of the exact optimiser.

Each template carries the rate of each request class at which it keeps the latency limits on its own; the optimiser
picks whole copies of templates on the offered GPUs and splits the classes over them. A template is an aggregated
replica, or a pod of prefill and decode replicas (pods.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from planner.architecture.model import Model
from planner.job.classes import WorkloadClass
from planner.job.job import Job, Mode
from planner.job.model_jobs import ONLY
from planner.search.cross_type import Pipeline, pipeline_capacity, worthwhile_pipelines
from planner.search.mixture import (
    Goal,
    Limits,
    MixtureProblem,
    MixtureResult,
    Offer,
    RequestClass,
    SolveOptions,
    Template,
    solve_mixture,
)
from planner.search.pods import Pod, pod_capacities, pod_name, worthwhile_pods
from planner.search.ranking import Candidate, Outcome
from planner.search.reject import Rejections
from planner.search.search import Progress, Supply, families, search
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine

# A price has to stand for GPUs without one in the rows of the optimiser; no answer may depend on it.
UNPRICED = 1.0
# Classes with the most tokens for which pods are looked for; each pod is then rated for every class.
_POD_CLASSES = 4


@dataclass(frozen=True, slots=True)
class Menu:
    """Templates of every GPU type, and by template and class one copy of it at its capacity.

    ``rejections`` by GPU type: why layouts of it fell out. ``owners`` names the job of each class where several models
    share a fleet.
    """

    templates: tuple[Template, ...]
    candidates: Mapping[tuple[str, str], Candidate]
    classes: tuple[WorkloadClass, ...]
    rejections: Mapping[str, Rejections] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)

    def owner(self, klass: str) -> str:
        """Job of a class."""
        return self.owners.get(klass, ONLY)

    def of(self, gpus: Sequence[str]) -> tuple[Template, ...]:
        """Templates on these GPU types only."""
        return tuple(t for t in self.templates if set(t.gpus) <= set(gpus))


def build_menu(
    model: Model,
    engine: Engine,
    supplies: Sequence[Supply],
    job: Job,
    classes: tuple[WorkloadClass, ...],
    progress: Progress | None = None,
    modes: Sequence[Mode] = ("aggregated",),
    known: Menu | None = None,
    drafting: Drafting | None = None,
    *,
    cross_type: Mapping[str, int] | None = None,
) -> Menu:
    """Evaluate every layout of every GPU type for every class, without any load of the job's own; with ``pd`` among
    the modes also pods, with ``cross_type`` (GPUs by type) pipelines over two types of at most so many: those of a
    ``known`` menu, or those that the classes with most tokens ask for."""
    candidates: dict[tuple[str, str], Candidate] = {}
    rejections: dict[str, Rejections] = {s.accelerator.id: Rejections() for s in supplies}
    pods = {pod.name: pod for pod in (known.pods if known else ())}
    pipelines = {pipeline.name: pipeline for pipeline in (known.pipelines if known else ())}
    leading = sorted(classes, key=lambda c: (-c.rate * (c.isl + c.osl), c.name))[:_POD_CLASSES]
    for klass in classes:
        if progress is not None:
            progress(f"capacities for {klass.name}: {klass.isl:.0f} in, {klass.osl:.0f} out")
        alone = _alone(job, klass)
        whole: list[Candidate] = []
        for supply in supplies:
            outcome = search(model, engine, [supply], alone, drafting=drafting)
            rejections[supply.accelerator.id].merge(outcome.rejections)
            whole += [one_copy(candidate) for candidate in outcome.ranked]
        if "aggregated" in modes:
            candidates.update({(template_name(c), klass.name): c for c in whole})
        if "pd" in modes and known is None and klass in leading:
            members = list(families(model, engine, supplies, alone, Outcome(), drafting=drafting))
            units = [(c.replica.accelerator.id, c.gpus, c.rate) for c in whole] if "aggregated" in modes else []
            pods.update({pod.name: pod for pod in worthwhile_pods(members, alone, units)})
        if cross_type is not None and known is None and klass in leading:
            if progress is not None:
                progress(f"pipelines over two GPU types for {klass.name}")
            units = [(c.replica.accelerator.id, c.gpus, c.rate) for c in whole]
            shared = [replace(s, count=cross_type.get(s.accelerator.id, 0)) for s in supplies]
            found = worthwhile_pipelines(model, engine, shared, alone, units)
            pipelines.update({pipeline.name: pipeline for pipeline in found})
    for klass in classes if pods else ():
        if progress is not None:
            progress(f"prefill and decode pods for {klass.name}")
        for candidate in pod_capacities(list(pods.values()), _alone(job, klass)):
            candidates[template_name(candidate), klass.name] = candidate
    for klass, pipeline in product(classes, pipelines.values()):
        rated = pipeline_capacity(pipeline, _alone(job, klass))
        if rated is not None:
            candidates[pipeline.name, klass.name] = rated
    units_found = tuple(pods.values()), tuple(pipelines.values())
    return Menu(_templates(candidates), candidates, classes, rejections, *units_found)


def one_copy(candidate: Candidate) -> Candidate:
    """One aggregated replica of a candidate, at its own capacity."""
    pool = replace(candidate.emitting, replicas=1)
    return replace(candidate, pools=(pool,), rate=candidate.per_replica.rate, idle=0)


def template_name(candidate: Candidate) -> str:
    """Name of a kind of unit: GPU, split and precisions of a replica, or both pools of a pod."""
    replica = candidate.replica
    if candidate.mode == "pd":
        return pod_name(candidate)
    drafts = "" if replica.speculation is None else f" {replica.speculation}"
    if replica.stages:
        return f"layers {candidate.emitting.split} {replica.weights} kv {replica.kv}"
    return f"{replica.accelerator.id} {candidate.layout} {replica.weights} kv {replica.kv}{drafts}"


def _alone(job: Job, klass: WorkloadClass) -> Job:
    workload = job.workload.model_copy(
        update={"isl": klass.isl, "osl": max(klass.osl, 1.0), "rate": None, "concurrency": None}
    )
    free = {"objective": "throughput", "budget": None, "modes": ("aggregated",)}
    return job.model_copy(update={"workload": workload, **free})


def _templates(candidates: Mapping[tuple[str, str], Candidate]) -> tuple[Template, ...]:
    capacity: dict[str, dict[str, float]] = {}
    kind: dict[str, Candidate] = {}
    for (name, klass), candidate in candidates.items():
        capacity.setdefault(name, {})[klass] = candidate.rate
        kind.setdefault(name, candidate)
    return tuple(_template(name, capacity[name], kind[name]) for name in sorted(capacity))


def _template(name: str, capacity: Mapping[str, float], unit: Candidate) -> Template:
    pieces: dict[str, tuple[int, ...]] = {}
    for pool in unit.pools:
        for accelerator, size in pool.pieces:
            pieces[accelerator.id] = (*pieces.get(accelerator.id, ()), *((size,) * pool.replicas))
    return Template(
        id=name,
        model=ONLY,
        gpus=unit.gpus_by_type,
        capacity=dict(capacity),
        power=sum(pool.power for pool in unit.pools),
        pieces={gpu: sizes for gpu, sizes in pieces.items() if len(sizes) > 1},
    )


def solve_fleet(
    menu: Menu,
    offers: tuple[Offer, ...],
    *,
    scale: float | None,
    limits: Limits | None = None,
    options: SolveOptions | None = None,
    goals: tuple[Goal, ...] | None = None,
) -> MixtureResult:
    """The best mixture on offers: cheapest for the classes' rates times ``scale``, or the most of that mix."""
    return solve_mixture(problem_of(menu, offers, scale=scale, limits=limits, goals=goals), options)


def problem_of(
    menu: Menu,
    offers: tuple[Offer, ...],
    *,
    scale: float | None,
    limits: Limits | None = None,
    goals: tuple[Goal, ...] | None = None,
) -> MixtureProblem:
    """The optimiser's question for these offers; ``goals`` by default cost of a rate, or throughput without one."""
    classes = tuple(RequestClass(c.name, menu.owner(c.name), c.rate * (scale or 1.0)) for c in menu.classes)
    usual = (Goal.THROUGHPUT, Goal.COST, Goal.GPUS) if scale is None else (Goal.COST, Goal.GPUS)
    templates = menu.of([offer.gpu for offer in offers])
    return MixtureProblem(templates, offers, classes, limits or Limits(), goals or usual)


def with_corners(classes: tuple[WorkloadClass, ...], corner: str) -> tuple[WorkloadClass, ...]:
    """The same classes with the lengths of a corner of their buckets, ``low`` or ``high``: what bucketing hides."""
    return tuple(replace(c, isl=getattr(c, corner)[0], osl=getattr(c, corner)[1]) for c in classes)

"""Mixtures of unequal replicas and GPU types: the layouts of the search become templates of the exact optimiser.

Each template carries the rate of each request class at which it keeps the latency limits on its own; the optimiser
picks whole replicas of templates on the offered GPUs and splits the classes over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from planner.architecture.model import Model
from planner.job.classes import WorkloadClass
from planner.job.job import Job
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
from planner.search.ranking import Candidate
from planner.search.reject import Rejections
from planner.search.search import Progress, Supply, search
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine

# A price has to stand for GPUs without one; it only orders GPU types among themselves.
UNPRICED = 1.0


@dataclass(frozen=True, slots=True)
class Menu:
    """Templates of every GPU type, and by template and class the candidate that runs at its capacity."""

    templates: tuple[Template, ...]
    candidates: Mapping[tuple[str, str], Candidate]
    classes: tuple[WorkloadClass, ...]
    rejections: Rejections = field(default_factory=Rejections)

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
    drafting: Drafting | None = None,
) -> Menu:
    """Evaluate every layout of every GPU type for every class, without any load of the job's own."""
    capacity: dict[str, dict[str, float]] = {}
    candidates: dict[tuple[str, str], Candidate] = {}
    rejections = Rejections()
    for klass in classes:
        if progress is not None:
            progress(f"capacities for {klass.name}: {klass.isl:.0f} in, {klass.osl:.0f} out")
        outcome = search(model, engine, list(supplies), _alone(job, klass), drafting=drafting)
        rejections.merge(outcome.rejections)
        for candidate in outcome.ranked:
            name = template_name(candidate)
            capacity.setdefault(name, {})[klass.name] = candidate.per_replica.rate
            candidates[name, klass.name] = candidate
    templates = [
        _template(name, rates, next(c for (t, _), c in candidates.items() if t == name))
        for name, rates in sorted(capacity.items())
    ]
    return Menu(tuple(templates), candidates, classes, rejections)


def template_name(candidate: Candidate) -> str:
    """Name of a kind of replica: GPU, split and precisions."""
    replica = candidate.replica
    drafts = "" if replica.speculation is None else f" {replica.speculation}"
    return f"{replica.accelerator.id} {candidate.layout} {replica.weights} kv {replica.kv}{drafts}"


def _alone(job: Job, klass: WorkloadClass) -> Job:
    workload = job.workload.model_copy(
        update={"isl": klass.isl, "osl": max(klass.osl, 1.0), "rate": None, "concurrency": None}
    )
    free = {"objective": "throughput", "budget": None, "modes": ("aggregated",)}
    return job.model_copy(update={"workload": workload, **free})


def _template(name: str, capacity: Mapping[str, float], candidate: Candidate) -> Template:
    accelerator = candidate.replica.accelerator
    return Template(
        id=name,
        model="model",
        gpus={accelerator.id: candidate.layout.gpus},
        capacity=dict(capacity),
        power=accelerator.power * candidate.layout.gpus,
    )


def solve_fleet(
    menu: Menu,
    offers: tuple[Offer, ...],
    *,
    scale: float | None,
    limits: Limits | None = None,
    options: SolveOptions | None = None,
) -> MixtureResult:
    """The best mixture on offers: cheapest for the classes' rates times ``scale``, or the most of that mix."""
    return solve_mixture(problem_of(menu, offers, scale=scale, limits=limits), options)


def problem_of(
    menu: Menu, offers: tuple[Offer, ...], *, scale: float | None, limits: Limits | None = None
) -> MixtureProblem:
    """The optimiser's question for these offers."""
    classes = tuple(RequestClass(c.name, "model", c.rate * (scale or 1.0)) for c in menu.classes)
    goals = (Goal.THROUGHPUT, Goal.COST, Goal.GPUS) if scale is None else (Goal.COST, Goal.GPUS)
    templates = menu.of([offer.gpu for offer in offers])
    return MixtureProblem(templates, offers, classes, limits or Limits(), goals)


def with_corners(classes: tuple[WorkloadClass, ...], corner: str) -> tuple[WorkloadClass, ...]:
    """The same classes with the lengths of a corner of their buckets, ``low`` or ``high``: what bucketing hides."""
    return tuple(replace(c, isl=getattr(c, corner)[0], osl=getattr(c, corner)[1]) for c in classes)

"""What can be built for a comparison: the menu of every job, and all of them as one where models share the fleets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.architecture.model import Model
from planner.comparison.fleets import FleetOffer, largest
from planner.job.comparing import ComparisonRequest
from planner.job.model_jobs import ModelJob
from planner.search.cross_type import MOST_GPUS
from planner.search.mixed import Menu, build_menu, with_corners
from planner.search.pods import POD_GPUS
from planner.search.search import Progress
from planner.search.shared_menu import joined
from planner.search.supply import Supply
from planner.serving.drafting import Drafting
from planner.serving.engine import Engine


@dataclass(frozen=True, slots=True)
class Part:
    """A job with its model and engine; ``supplies`` of all fleets as they are calibrated for this model, ``drafting``
    how it may speculate."""

    asked: ModelJob
    model: Model
    engine: Engine
    supplies: tuple[Supply, ...]
    drafting: Drafting | None = None


@dataclass(frozen=True, slots=True)
class Menus:
    """``menu`` of everything, and ``own`` of each part."""

    menu: Menu
    own: tuple[Menu, ...]


def build_menus(
    parts: Sequence[Part],
    union: FleetOffer,
    asked: ComparisonRequest,
    progress: Progress | None = None,
    *,
    known: Menus | None = None,
    corner: str | None = None,
) -> Menus:
    """Evaluate the units of every part; with a ``corner`` the classes have the lengths of that corner of their buckets,
    and pods and pipelines are those already ``known``."""
    own = []
    for index, part in enumerate(parts):
        classes = part.asked.classes if corner is None else with_corners(part.asked.classes, corner)
        menu = build_menu(
            part.model, part.engine, largest(part.supplies), part.asked.job, classes, progress, part.asked.job.modes,
            None if known is None else known.own[index], part.drafting,
            cross_type=union.counts if asked.cross_type else None,
        )  # fmt: skip
        own.append(menu)
    if len(own) == 1:
        return Menus(own[0], tuple(own))
    return Menus(joined({part.asked.name: menu for part, menu in zip(parts, own, strict=True)}), tuple(own))


def scope(menu: Menu, asked: ComparisonRequest) -> str:
    """Among what the proofs hold; units that were asked for and help nowhere are named too."""
    pods = len({name for (name, _), candidate in menu.candidates.items() if candidate.mode == "pd"})
    stages = len(menu.pipelines)
    found = [f"{len(menu.templates) - pods - stages} kinds of aggregated replicas"]
    if stages:
        found.append(f"{stages} pipeline{'s' if stages > 1 else ''} over two GPU types (at most {MOST_GPUS} of each)")
    if pods:
        found.append(f"{pods} kinds of pods; a pod is a prefill and a decode pool of at most {POD_GPUS} GPUs a type")
    none = ["pipeline over two GPU types"] if asked.cross_type and not stages else []
    none += ["pod of prefill and decode replicas"] if "pd" in asked.job.modes and not pods else []
    beside = f" No {' and no '.join(none)} was found that adds to them." if none else ""
    return f"Proofs hold among {' and '.join(found)}.{beside}"

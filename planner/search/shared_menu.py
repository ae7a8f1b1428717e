"""Menus of several models that share one fleet, as one: names of units and classes carry the name of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.search.mixed import Menu
from planner.search.reject import Rejections


def joined(menus: Mapping[str, Menu]) -> Menu:
    """The menus of jobs by name as one. Units serve the classes of their own job only."""
    rejections: dict[str, Rejections] = {}
    for menu in menus.values():
        for gpu, rows in menu.rejections.items():
            rejections.setdefault(gpu, Rejections()).merge(rows)
    owners = {_class(menu, job, c.name): job for job, menu in menus.items() for c in menu.classes}
    return Menu(
        templates=tuple(
            replace(
                unit,
                id=_named(job, unit.id),
                model=job,
                capacity={_class(menu, job, klass): rate for klass, rate in unit.capacity.items()},
            )
            for job, menu in menus.items()
            for unit in menu.templates
        ),
        candidates={
            (_named(job, unit), _class(menu, job, klass)): candidate
            for job, menu in menus.items()
            for (unit, klass), candidate in menu.candidates.items()
        },
        classes=tuple(replace(c, name=_class(menu, job, c.name)) for job, menu in menus.items() for c in menu.classes),
        rejections=rejections,
        pods=tuple(pod for menu in menus.values() for pod in menu.pods),
        pipelines=tuple(pipeline for menu in menus.values() for pipeline in menu.pipelines),
        owners=owners,
    )


def _class(menu: Menu, job: str, klass: str) -> str:
    """The only class of a job goes by the job's name."""
    return job if len(menu.classes) == 1 else _named(job, klass)


def _named(job: str, name: str) -> str:
    return f"{job}: {name}"

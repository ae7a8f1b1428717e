"""planner: capacity planning and parallelism optimisation for large language models.

``from planner import search, estimate, Job`` gives the public API; it is imported on first use, so that
``import planner`` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from planner.version import __version__

if TYPE_CHECKING:
    from planner.api import Catalogs, compare, estimate, search, simulate
    from planner.job import Fleet, Job, Slo, Workload
    from planner.job.traffic import Traffic
    from planner.plan import Plan, PlanFile

__all__ = [
    "Catalogs",
    "Fleet",
    "Job",
    "Plan",
    "PlanFile",
    "Slo",
    "Traffic",
    "Workload",
    "__version__",
    "compare",
    "estimate",
    "search",
    "simulate",
]

_HOME = {
    "Catalogs": "planner.api",
    "Traffic": "planner.job.traffic",
    "compare": "planner.api",
    "estimate": "planner.api",
    "simulate": "planner.api",
    "search": "planner.api",
    "Fleet": "planner.job",
    "Job": "planner.job",
    "Slo": "planner.job",
    "Workload": "planner.job",
    "Plan": "planner.plan",
    "PlanFile": "planner.plan",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'planner' has no attribute {name!r}")


class _Package(ModuleType):
    """Keeps ``planner.search`` the function, although a room of that name exists: importing ``planner.search.ranking``
    would otherwise bind the room over it. The room stays importable by its dotted name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

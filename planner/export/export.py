"""One plan to the files of one target, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from planner.api import Catalogs
from planner.errors import UnknownNameError
from planner.export.deployment import Deployment, deployment
from planner.plan import PlanFile

TARGETS: Final[Mapping[str, str]] = {
    "vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm", "dynamo": "dynamo", "llm-d": "llm_d", "kserve": "kserve",
    "lws": "lws",
}  # fmt: skip


def check_target(target: str) -> None:
    """Raise UnknownNameError for a target that is none."""
    if target not in TARGETS:
        raise UnknownNameError("export target", target, TARGETS)


def export(
    found: PlanFile,
    rank: int,
    target: str,
    catalogs: Catalogs,
    *,
    model: str | None = None,
    draft: str | None = None,
    check: bool = False,
) -> tuple[Mapping[str, str], Deployment]:
    """Return the files of a plan by name, and what they were made from.

    Parameters
    ----------
    check : validate them against the distilled schemas too; needs the package jsonschema.

    Raises ExportError for what the target cannot express or a file that fails, InputError for unknown names.
    """
    check_target(target)
    module = import_module(f"planner.export.{TARGETS[target]}")
    plan = deployment(found, rank, target, module.ENGINES, catalogs, model, draft)
    files: Mapping[str, str] = module.render(plan)
    if check:
        from planner.export.check import check_files

        check_files(files)
    return files, plan

"""How Kubernetes finds the nodes of a GPU: the extended resource and the node labels, from the catalog."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.catalog.entry import Entry
from planner.catalog.files import catalog_root
from planner.catalog.hardware import Accelerator
from planner.errors import InputError

FALLBACK_LABEL = "llm-capacity-planner/gpu"
_PATH = Path("kubernetes") / "node_selectors.toml"
_DEFAULT_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Selector:
    """What a pod asks for to land on a GPU type. ``known`` is false where the user has to label the nodes."""

    resource: str
    labels: Mapping[str, str]
    known: bool


def selector(gpu: Accelerator, folders: Sequence[Path] = ()) -> Selector:
    """Return the selector of a GPU; a user's folders win over the built-in catalog. Raises InputError."""
    resource, labels = _DEFAULT_RESOURCE, None
    for folder in (catalog_root("hardware_catalog"), *folders):
        path = folder / _PATH
        if not path.is_file():
            continue
        resources, by_gpu = _read(path)
        resource = resources.get(gpu.vendor, resource)
        labels = by_gpu.get(gpu.id, labels)
    if labels is None:
        return Selector(resource, {FALLBACK_LABEL: gpu.id[:63].strip(".-")}, False)
    return Selector(resource, labels, True)


def _read(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    try:
        top = Entry(str(path), tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: {problem}") from None
    top.refuse_unknown(("source", "resources", "labels"))
    labels = top.entry("labels")
    return _texts(top.entry("resources")), {gpu: _texts(labels.entry(gpu)) for gpu in labels.table}


def _texts(entry: Entry) -> dict[str, str]:
    return {name: entry.text(name) for name in entry.table}

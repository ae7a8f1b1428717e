"""How Kubernetes finds the nodes of a GPU: the extended resource, the node labels, the images; from the catalog."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.catalog.entry import Entry
from planner.catalog.files import catalog_root
from planner.catalog.hardware import Accelerator
from planner.errors import ExportError, InputError

FALLBACK_LABEL = "llm-capacity-planner/gpu"
_PATH = Path("kubernetes") / "node_selectors.toml"
_DEFAULT_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Selector:
    """What a pod asks for to land on a GPU type, and the images that run there.

    ``known`` is false where the user has to label the nodes; ``images`` are the user's own by engine, over those of
    the flag tables.
    """

    resource: str
    labels: Mapping[str, str]
    known: bool
    vendor: str
    images: Mapping[str, str]

    def image(self, engine: str, shipped: Mapping[str, str]) -> str:
        """Return the container image of an engine or wrapper; ``shipped`` is by vendor. Raises ExportError."""
        image = self.images.get(engine) or shipped.get(self.vendor)
        if image is None:
            raise ExportError(
                f"no image of {engine} for GPUs of {self.vendor} is known",
                hint=f'name yours: [images.{engine}] "{self.vendor}" = "..." in kubernetes/node_selectors.toml of a '
                "folder given with --catalog",
            )
        return image


def selector(gpu: Accelerator, folders: Sequence[Path] = ()) -> Selector:
    """Return the selector of a GPU; a user's folders win over the built-in catalog. Raises InputError."""
    resource, labels, images = _DEFAULT_RESOURCE, None, dict[str, str]()
    for folder in (catalog_root("hardware_catalog"), *folders):
        path = folder / _PATH
        if not path.is_file():
            continue
        resources, by_gpu, by_engine = _read(path)
        resource = resources.get(gpu.vendor, resource)
        labels = by_gpu.get(gpu.id, labels)
        images |= {engine: found[gpu.vendor] for engine, found in by_engine.items() if gpu.vendor in found}
    known = labels is not None
    return Selector(resource, labels or {FALLBACK_LABEL: gpu.id[:63].strip(".-")}, known, gpu.vendor, images)


def _read(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    try:
        top = Entry(str(path), tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: {problem}") from None
    top.refuse_unknown(("source", "resources", "labels", "images", "sources"))
    return _texts(top.entry("resources")), _tables(top.entry("labels")), _tables(top.entry("images"))


def _tables(entry: Entry) -> dict[str, dict[str, str]]:
    return {name: _texts(entry.entry(name)) for name in entry.table}


def _texts(entry: Entry) -> dict[str, str]:
    return {name: entry.text(name) for name in entry.table}

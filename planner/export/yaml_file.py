"""YAML text of manifests: keys in the order given, no anchors, a comment on top that says what it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.export.deployment import Deployment
from planner.export.names import one_line


def yaml_file(plan: Deployment, *documents: Mapping[str, Any], comment: str = "") -> str:
    """Write documents with the provenance of the plan on top."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000)
    return "".join(f"# {line}\n" for line in header(plan, comment)) + text


def header(plan: Deployment, comment: str = "") -> list[str]:
    """Comment lines: what this is, and the provenance."""
    lines = [one_line(comment)] if comment else []
    return lines + [one_line(f"{key}: {value}") for key, value in plan.annotations.items()]

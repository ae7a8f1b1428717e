"""``planner export --check``: files against our distilled schema subsets and flag tables, without any network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from planner.errors import ExportError, PlannerError
from planner.export.flags import ENGINES, flag_table, problems
from planner.export.names import one_line

_FOLDER = Path(__file__).parent / "schemas"
_KINDS = {
    "LeaderWorkerSet": "lws", "DynamoGraphDeployment": "dynamo", "LLMInferenceService": "kserve",
    "ConfigMap": "core", "Service": "core", "Deployment": "core",
}  # fmt: skip


def check_files(files: Mapping[str, str]) -> None:
    """Raise ExportError with the first problem of any file."""
    for name, text in files.items():
        if name.endswith(".yaml"):
            wrong = next(file_problems(text), None)
            if wrong is not None:
                raise ExportError(f"{name} fails its schema: {wrong}", hint="report this plan: it is a bug")


def file_problems(text: str) -> Iterator[str]:
    """Name what is wrong with a YAML file, document by document."""
    import yaml

    try:
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as broken:
        yield f"not YAML: {one_line(str(broken))}"
        return
    for document in documents or [None]:
        yield from document_problems(document)


def document_problems(document: Any) -> Iterator[str]:
    """Name what is wrong with one manifest, values file or engine configuration."""
    if not isinstance(document, dict):
        yield "not a mapping"
        return
    schema, part = _kind_of(document)
    if schema is None:
        yield f"unknown kind {one_line(str(document.get('kind')))[:60]!r}"
        return
    for error in sorted(_validator(schema, part).iter_errors(document), key=lambda e: [str(p) for p in e.path]):
        yield f"{'.'.join(str(p) for p in error.absolute_path) or part}: {one_line(error.message)[:200]}"
        return
    yield from _rules(document)
    for container in _containers(document):
        yield from _command_problems(container)


def _kind_of(document: Mapping[str, Any]) -> tuple[str | None, str]:
    if "kind" in document or "apiVersion" in document:
        kind = str(document.get("kind"))
        return _KINDS.get(kind), kind
    if "context_servers" in document:
        return "trtllm", "orchestrator"
    if "tensor_parallel_size" in document or "kv_cache_config" in document:
        return "trtllm", "config"
    return "llm-d", "values"


@cache
def _validator(schema: str, part: str) -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ImportError:
        raise PlannerError("--check needs the package jsonschema", hint="pip install jsonschema") from None
    common, own = _load("kubernetes"), _load(schema)
    return Draft202012Validator({**own[part], "$defs": {**common["$defs"], **own.get("$defs", {})}})


def _load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _rules(document: Mapping[str, Any]) -> Iterator[str]:
    """Rules that the schemas of the platforms leave to admission hooks."""
    if document.get("kind") == "DynamoGraphDeployment":
        names = [component["name"] for component in document["spec"]["components"]]
        if len(set(names)) < len(names):
            yield "spec.components: two components have one name"
        for component in document["spec"]["components"]:
            containers = component.get("podTemplate", {}).get("spec", {}).get("containers", [])
            if containers and "main" not in [container["name"] for container in containers]:
                yield f"spec.components.{component['name']}: no container is called main"
            if component.get("minAvailable", 0) > component.get("replicas", 1):
                yield f"spec.components.{component['name']}: minAvailable above replicas"
    if document.get("kind") == "Deployment":
        spec = document["spec"]
        labels = spec["template"].get("metadata", {}).get("labels", {})
        if not spec["selector"]["matchLabels"].items() <= labels.items():
            yield "spec.selector: does not match the labels of the template"


def _containers(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "containers" and isinstance(value, list):
                yield from value
            else:
                yield from _containers(value)
    elif isinstance(node, list):
        for item in node:
            yield from _containers(item)


def _command_problems(container: Mapping[str, Any]) -> Iterator[str]:
    """Check the words of a container that starts an engine as we start it."""
    command, args = list(container.get("command", [])), list(container.get("args", []))
    for engine in (*ENGINES, *(f"dynamo-{engine}" for engine in ENGINES)):
        own = list(flag_table(engine).command)
        if command == own or (command[:2] == ["/bin/sh", "-c"] and f"exec {shlex.join(own)} " in command[2]):
            yield from problems(engine, args)
    if container.get("modelCommand") in ("vllmServe", "imageDefault"):  # the chart adds the model
        yield from problems("vllm", ["model", *args])
    for variable in container.get("env", []):
        if variable["name"] == "VLLM_ADDITIONAL_ARGS":
            try:
                yield from problems("vllm", ["model", *shlex.split(variable.get("value", ""))])
            except ValueError as broken:
                yield f"VLLM_ADDITIONAL_ARGS: {broken}"

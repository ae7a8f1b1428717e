"""JSON Schemas of what planner reads and writes, derived from the models themselves."""

from __future__ import annotations

import json

from pydantic import BaseModel

from planner.errors import UnknownNameError
from planner.job.job import Job
from planner.plan import PlanFile

_SCHEMAS: dict[str, type[BaseModel]] = {"plan": PlanFile, "job": Job}


def json_schema(what: str) -> str:
    """Return the schema of ``plan`` or ``job`` as JSON text. Raises UnknownNameError."""
    if what not in _SCHEMAS:
        raise UnknownNameError("schema", what, _SCHEMAS)
    return json.dumps(_SCHEMAS[what].model_json_schema(), indent=2)

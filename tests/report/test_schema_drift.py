from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.report.schema import json_schema

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("what", ["plan", "job"])
def test_the_committed_schema_is_that_of_the_models(what: str) -> None:
    committed = json.loads((FOLDER / f"{what}.schema.json").read_text())
    again = f"planner schema {what} > docs/schemas/{what}.schema.json"
    assert committed == json.loads(json_schema(what)), f"run: {again}"

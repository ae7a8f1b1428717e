"""Every format that the help of ``-o`` names is taken by every command, on stdout and by the suffix of ``--out``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_cases import strict_json

from planner.api import search
from planner.job.parse import parse_job
from planner.plan import to_json

Command = Callable[..., Any]
PROFILE = {
    "offers": [{"name": "a", "cost_usd_per_hour": 1.0}],
    "classes": [{"name": "w", "rate": 3.0}],
    "capacity": {"a": {"w": 2.0}},
}
PIPELINES = {"layers": 2, "devices": [{"name": "a", "count": 2, "rates": [4.0, 2.0]}]}
LOAD = ("llama-3.1-8b", "--isl", "1k", "--osl", "200")
COMMANDS = {
    "explain": ("explain", "plan.json"),
    "simulate": ("simulate", "plan.json", "--requests", "100"),
    "diff": ("diff", "plan.json", "cheap.json"),
    "estimate": ("estimate", *LOAD, "--gpu", "l40s", "--concurrency", "4"),
    "compare": ("compare", *LOAD, "--fleet", "l40s:2", "--rate", "2/s"),
    "allocate": ("allocate", "profile.json"),
    "pipelines": ("allocate", "pipelines.json"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two saved plans and two profiles of capacities."""
    path = tmp_path_factory.mktemp("formats")
    for name, rate in (("plan", None), ("cheap", "2/s")):
        job = parse_job(model=LOAD[0], fleet="l40s:2", isl="1000", osl="200", tpot="80ms", rate=rate, simulate_top=0)
        (path / f"{name}.json").write_text(to_json(search(job)))
    (path / "profile.json").write_text(json.dumps(PROFILE))
    (path / "pipelines.json").write_text(json.dumps(PIPELINES))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_writes_every_format(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    targets = [Path(f"out.{suffix}") for suffix in ("json", "yaml", "csv", "md", "txt")]
    shown = command(*COMMANDS[name], *(word for path in targets for word in ("--out", path)))
    assert shown.code == 0, shown.err
    saved = {path.suffix: path.read_text() for path in targets}
    assert strict_json(saved[".json"]) and yaml.safe_load(saved[".yaml"])
    rows = list(csv.DictReader(saved[".csv"].splitlines()))
    assert rows and all(None not in row and None not in row.values() for row in rows)
    assert "\n| ---" in saved[".md"] and "───" not in saved[".md"] and "───" in saved[".txt"] == shown.out
    printed = command(*COMMANDS[name], "-o", "csv")
    assert printed.code == 0 and printed.out.splitlines()[0] == saved[".csv"].splitlines()[0]

"""Several models that share one fleet: each with a job of its own, from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError
from planner.job.classes import WorkloadClass, classes_of_trace, read_classes, single_class
from planner.job.documents import as_text, read_document, shown
from planner.job.job import Job
from planner.job.parse import parse_job

ONLY = "model"
"""Name of the job where there is one."""
_MOST_JOBS = 20
# Keys that a job of the file may set; on the command line they hold for the jobs that do not.
WORDS = ("prefix_hit", "ttft", "tpot", "e2e", "weights", "kv", "engine", "speculate", "acceptance", "draft_tokens")
_KEYS = ("model", "name", "isl", "osl", "rate", "workload", "trace", *WORDS)


@dataclass(frozen=True, slots=True)
class ModelJob:
    """A model with its request classes and limits; ``name`` tells it from the others that share the fleet."""

    name: str
    job: Job
    classes: tuple[WorkloadClass, ...]


def model_job(name: str, load: Mapping[str, str | Path | None], words: Mapping[str, Any]) -> ModelJob:
    """Read one job; ``load`` has isl, osl, rate, workload and trace, ``words`` the other options of ``parse_job``."""
    workload, trace = load.get("workload"), load.get("trace")
    isl, osl, rate = (None if load.get(key) is None else str(load[key]) for key in ("isl", "osl", "rate"))
    classes = _recorded(workload, trace, rate, isl or osl)
    if classes:
        total = sum(c.rate for c in classes)
        isl = str(max(1, round(sum(c.isl * c.rate for c in classes) / total)))
        osl = str(max(1, round(sum(c.osl * c.rate for c in classes) / total)))
        rate = f"{total:.12g}/s"
    job = parse_job(isl=isl, osl=osl, rate=rate, simulate_top=0, **words)
    return ModelJob(name, job, classes or single_class(job.workload.isl, job.workload.osl, job.workload.rate))


def read_jobs(path: Path, words: Mapping[str, Any]) -> tuple[ModelJob, ...]:
    """Read ``jobs: [{model, rate, isl, osl, ttft, ...}, ...]`` from YAML or JSON; ``words`` hold where a job is silent.

    Raises InputError naming the job and the key.
    """
    data = read_document(path, f"--jobs {path}")
    rows = data.get("jobs") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--jobs {path}: no jobs", hint="jobs: [{model: llama-3.1-8b, isl: 1k, osl: 200, rate: 5/s}]")
    if len(rows) > _MOST_JOBS:
        raise InputError(f"--jobs {path}: {len(rows)} jobs; at most {_MOST_JOBS}")
    found: list[ModelJob] = []
    for number, row in enumerate(rows, start=1):
        job = _job(row, f"--jobs {path}: job {number}", path.parent, words)
        if any(job.name == other.name for other in found):
            raise InputError(f"--jobs {path}: two jobs are called {job.name!r}", hint="give each a name of its own")
        found.append(job)
    return tuple(found)


def _job(row: Any, where: str, folder: Path, words: Mapping[str, Any]) -> ModelJob:
    if not isinstance(row, dict):
        raise InputError(f"{where} is not a mapping", hint="{model: llama-3.1-8b, isl: 1k, osl: 200, rate: 5/s}")
    unknown = sorted(shown(key) for key in row if key not in _KEYS)
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]}", hint=", ".join(_KEYS))
    values = {key: as_text(value, f"{where}: {key}") for key, value in row.items() if value is not None}
    if "model" not in values:
        raise InputError(f"{where}: model is missing")
    load: dict[str, str | Path | None] = {key: values.get(key) for key in ("isl", "osl", "rate")}
    load |= {key: folder / values[key] for key in ("workload", "trace") if key in values}
    if not {"rate", "workload", "trace"} & values.keys():
        raise InputError(f"{where}: rate is missing", hint="models share a fleet at the rates that each has to carry")
    mine = {**words, "model": values["model"], **{key: values[key] for key in WORDS if key in values}}
    try:
        return model_job(values.get("name", values["model"]), load, mine)
    except InputError as problem:
        raise InputError(f"{where}: {problem}", hint=problem.hint) from None


def _recorded(
    workload: str | Path | None, trace: str | Path | None, rate: str | None, lengths: str | None
) -> tuple[WorkloadClass, ...]:
    if workload is None and trace is None:
        return ()
    if workload is not None and trace is not None:
        raise InputError("give --workload or --trace, not both")
    if rate is not None or lengths is not None:
        raise InputError(
            "--workload and --trace bring their own lengths and rates", hint="leave out --isl, --osl, --rate"
        )
    return read_classes(Path(workload)) if workload is not None else classes_of_trace(Path(trace or ""))

"""Is this installation fit to plan: versions, solvers, catalogs, the age of prices, the GPUs of this machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from importlib import metadata, util
from typing import Any

from planner.api import Catalogs
from planner.architecture.catalog import known_models
from planner.errors import PlannerError
from planner.units import MIB
from planner.version import __version__

Row = dict[str, Any]
NEEDED = ("typer", "rich", "pydantic", "numpy", "ortools", "pulp", "pyyaml")
OPTIONAL = {"jsonschema": "planner export --check", "ray": "planner sweep --on ray", "pyarrow": "Parquet tables"}
STALE_DAYS = 180
_MEMORY_TOLERANCE = 0.03


def examine(catalogs: Catalogs, today: date | None = None, smi: Callable[[], str | None] | None = None) -> list[Row]:
    """One row per check: ``status`` is ok, warning or failure, ``detail`` says what was found and what to do.

    Parameters
    ----------
    today : the day against which prices are dated.
    smi : returns what nvidia-smi prints of name and memory, or None without it.
    """
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return [
        _row("planner", sys.version_info >= (3, 11), f"{__version__}; Python {python}"),
        *_packages(), *_solvers(), *_catalogs(catalogs, today or date.today()), *_devices(catalogs, smi or nvidia_smi),
    ]  # fmt: skip


def _row(check: str, good: bool, detail: str, bad: str = "failure") -> Row:
    return {"check": check, "status": "ok" if good else bad, "detail": detail}


def _packages() -> Iterator[Row]:
    for name in NEEDED:
        version = _version(name)
        yield _row(f"package {name}", version is not None, version or f"missing: pip install {name}")
    for name, use in OPTIONAL.items():
        yield _row(f"package {name}", True, _version(name) or f"not installed; only {use} needs it")
    clash = util.find_spec("highspy") is not None
    yield _row("package highspy", not clash, "installed: it cannot be imported next to ortools" if clash else "absent",
               "warning")  # fmt: skip


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _solvers() -> Iterator[Row]:
    for name, solve in (("HiGHS (ortools)", _highs), ("CBC (pulp)", _cbc)):
        try:
            value = solve()
            yield _row(f"solver {name}", abs(value - 2.0) < 1e-6, f"a test problem gives {value:g}, expected 2")
        except Exception as problem:  # whatever a broken installation raises is the finding
            yield _row(f"solver {name}", False, f"{type(problem).__name__}: {problem}"[:200])


def _highs() -> float:
    from datetime import timedelta

    from ortools.math_opt.python import mathopt

    model = mathopt.Model()
    x = model.add_integer_variable(lb=0, ub=2.5)
    model.maximize(x)
    limit = mathopt.SolveParameters(time_limit=timedelta(seconds=10))
    return float(mathopt.solve(model, mathopt.SolverType.HIGHS, params=limit).objective_value())


def _cbc() -> float:
    import warnings

    import pulp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pulp 3 announces the names of pulp 4, which it lacks
        problem = pulp.LpProblem("doctor", pulp.LpMaximize)
        x = pulp.LpVariable("x", 0, 2.5, cat="Integer")
        problem += x
        problem.solve(pulp.PULP_CBC_CMD(msg=False, timeLimit=10))
        return float(pulp.value(problem.objective))


def _catalogs(catalogs: Catalogs, today: date) -> Iterator[Row]:
    try:
        hardware = catalogs.hardware
        detail = f"{len(hardware.accelerators)} GPUs, {len(hardware.nodes)} servers, sha256 {hardware.sha256[:16]}"
        yield _row("hardware catalog", True, detail)
        yield _row("models catalog", True, f"{len(known_models(catalogs.model_folders))} models")
        prices = hardware.prices
    except PlannerError as problem:
        yield _row("catalogs", False, str(problem))
        return
    newest: dict[str, str] = {}
    for price in prices:
        newest[price.accelerator] = max(newest.get(price.accelerator, ""), price.date)
    stale = sorted(gpu for gpu, day in newest.items() if _age(day, today) > STALE_DAYS)
    detail = f"newest of {len(newest)} GPUs within {STALE_DAYS} days"
    if stale:
        shown = ", ".join(f"{gpu} ({newest[gpu]})" for gpu in stale[:6])
        more = f" and {len(stale) - 6} more" if len(stale) > 6 else ""
        detail = f"{len(stale)} of {len(newest)} GPUs have no price from the last {STALE_DAYS} days: {shown}{more}"
    yield _row("prices", not stale, detail, "warning")


def _age(day: str, today: date) -> float:
    """Days since a date; one that names only a year or a month counts from its end."""
    whole = {4: f"{day}-12-31", 7: f"{day}-28"}.get(len(day), day)
    try:
        return (today - date.fromisoformat(whole)).days
    except ValueError:
        return float("inf")


def nvidia_smi() -> str | None:
    """What nvidia-smi says of the GPUs of this machine, one ``name, MiB`` a line; None without it."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout


def _devices(catalogs: Catalogs, smi: Callable[[], str | None]) -> Iterator[Row]:
    seen = smi()
    if seen is None:
        yield _row("GPUs of this machine", True, "no nvidia-smi here; plans need none")
        return
    lines = [line.strip() for line in seen.splitlines() if line.strip()]
    for line in sorted(set(lines)):
        name, _, size = line.rpartition(",")
        title = f"GPU {name.strip()[:60]}"
        count = lines.count(line)
        try:
            known = catalogs.hardware.accelerator(name.strip())
        except PlannerError as problem:
            yield _row(title, False, f"{count} here; not in the catalog: {problem.hint or 'add it'}", "warning")
            continue
        memory = float(size) * MIB if size.strip().isdigit() else known.memory
        close = abs(memory / known.memory - 1) <= _MEMORY_TOLERANCE
        detail = f"{count} x {known.id}; driver {memory / MIB:,.0f} MiB, catalog {known.memory / MIB:,.0f} MiB"
        yield _row(title, close, detail, "warning")

"""One door to every solver: OR-Tools (HiGHS, SCIP, CP-SAT, GLOP) and, independently, CBC through PuLP.

Solvers are imported inside functions, because importing one costs more than a whole ``--help``, and
highspy is never imported: it clashes with OR-Tools in one process.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from planner.search.mixture.linear import LinearModel
from planner.units import Seconds

SOLVERS: Final = ("auto", "highs", "scip", "cp-sat", "pulp-cbc")


@dataclass(frozen=True, slots=True)
class SolverLimits:
    """When a solver stops. Same seed, one worker and no time limit reached: same plan.

    Attributes
    ----------
    seconds : wall time. The other two are deterministic: ``nodes`` for HiGHS, SCIP and CBC, ``work`` (CP-SAT's
        deterministic seconds).
    absolute_gap : a gap below this is proof enough (set from the step between possible values).
    """

    seconds: Seconds = 60.0
    nodes: int | None = None
    work: float | None = None
    seed: int = 1
    absolute_gap: float = 0.0
    relative_gap: float = 1e-9


@dataclass(frozen=True, slots=True)
class LinearSolution:
    """What a solver said. ``bound`` is a proved lower bound (minus infinity if none); ``duals`` by row, LPs only."""

    status: str  # optimal, feasible, infeasible, unbounded, unknown
    solver: str
    values: list[float] | None = None
    bound: float = -math.inf
    duals: list[float] | None = None


def solve_linear(
    model: LinearModel, solver: str, limits: SolverLimits, hint: list[float] | None = None
) -> LinearSolution:
    """Minimise ``model`` with a named solver (``glop`` ignores integrality)."""
    if not model.variables:
        return _without_columns(model, solver)
    if solver == "pulp-cbc":
        from planner.search.mixture.cbc import solve_with_cbc

        return solve_with_cbc(model, limits, hint)
    if solver == "glop":
        from planner.search.mixture.relaxation import solve_relaxed

        return solve_relaxed(model, limits)
    from planner.search.mixture.mathopt import solve_with_mathopt

    return solve_with_mathopt(model, solver, limits, hint)


def _without_columns(model: LinearModel, solver: str) -> LinearSolution:
    holds = all(row.lower <= 0.0 <= row.upper for row in model.rows)
    return LinearSolution("optimal", solver, [], 0.0) if holds else LinearSolution("infeasible", solver)


_LEFT_BEHIND: Final[list[threading.Thread]] = []
_HERE: Final = threading.local()


def leave(code: int) -> None:
    """End the process with ``code`` at once if a solver was left behind; return if not.

    To be called last: native solver threads do not survive the interpreter's own shutdown in silence.
    """
    if any(worker.is_alive() for worker in _LEFT_BEHIND):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def in_thread(work: Callable[[], LinearSolution], solver: str, seconds: Seconds) -> LinearSolution:
    """Run a native solver beside the main thread, so that Ctrl-C is heard at once and stdout stays clean.

    On Ctrl-C, or when it overruns its limit by far, the solver is left behind (see ``leave``): HiGHS hears no
    interrupt, and OR-Tools' interrupter made SCIP print errors and CP-SAT abort the process. Raises KeyboardInterrupt,
    so that whoever searches stops with what there is, whatever step the key was pressed in.
    """
    answers: list[LinearSolution] = []
    failures: list[Exception] = []

    def run() -> None:
        _HERE.worker = True
        try:
            answers.append(work())
        except Exception as error:
            failures.append(error)

    worker = threading.Thread(target=run, daemon=True)
    with silent_stdout():
        deadline = time.monotonic() + 1.5 * seconds + 5.0
        try:
            worker.start()
            while worker.is_alive() and time.monotonic() < deadline:
                worker.join(0.1)
        finally:
            if worker.is_alive():
                _LEFT_BEHIND.append(worker)
    if failures:
        raise failures[0]
    return answers[0] if answers else LinearSolution("unknown", solver)


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Point file descriptor 1 away while native code runs: HiGHS prints there even when told to be silent.

    Nothing in a solver's own thread, beside which stdout is silent already: one that is left behind would put the
    silence back when it ends, and the answer would be lost.
    """
    if getattr(_HERE, "worker", False):
        yield
        return
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)

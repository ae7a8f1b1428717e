"""What was proved, by whom, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction

from planner.units import Seconds

PROVED_GAP = 1e-9  # of values that are multiples of a step
PROVED_GAP_CONTINUOUS = 1e-7  # of values that come out of an LP
BOUND_ERROR = Fraction(1, 10**7)  # relative error of a solver's bound, never rounded up across


@dataclass(frozen=True, slots=True)
class Certificate:
    """The proof that comes with a plan.

    Attributes
    ----------
    value, bound : of the objective in its unit; for throughput (maximised) the bound lies above the value.
    gap : |value - bound| / |value|.
    status : optimal, feasible (stopped early, see ``stopped_by``) or infeasible.
    rows_checked : conditions re-checked outside the solver in exact arithmetic, all of which hold.
    """

    objective: str
    value: float | None
    bound: float | None
    gap: float | None
    status: str
    solver: str
    seconds: Seconds
    seed: int = 1
    workers: int = 1
    time_limit: Seconds | None = None
    work_limit: float | None = None
    stopped_by: str | None = None
    rows_checked: int = 0

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def exact(value: float) -> Fraction:
    """The decimal number that the user wrote, not its nearest binary one: 0.1 is 1/10."""
    return Fraction(repr(float(value)))


def relative_gap(value: float, bound: float, proved: float = PROVED_GAP) -> float:
    """|value - bound| / |value|, 0 where they agree to ``proved``, infinite without a bound."""
    if value == bound:
        return 0.0
    if not math.isfinite(bound) or value == 0.0:
        return math.inf
    gap = abs(value - bound) / abs(value)
    return 0.0 if gap <= proved else gap


def value_step(coefficients: Iterable[float]) -> Fraction:
    """Greatest common divisor of the coefficients of an all-integer objective: its values are multiples of it."""
    step = Fraction(0)
    for coefficient in coefficients:
        c = abs(exact(coefficient))
        step = _gcd(step, c)
    return step


def lift_bound(bound: float, step: Fraction) -> float:
    """Round a lower bound up to the next possible value, unless the solver's error could have carried it there."""
    if step == 0 or not math.isfinite(bound):
        return bound
    slack = abs(exact(bound)) * BOUND_ERROR
    return max(bound, float(math.ceil((exact(bound) - slack) / step) * step))


def _gcd(a: Fraction, b: Fraction) -> Fraction:
    if a == 0 or b == 0:
        return a + b
    denominator = a.denominator * b.denominator // math.gcd(a.denominator, b.denominator)
    return Fraction(math.gcd(int(a * denominator), int(b * denominator)), denominator)

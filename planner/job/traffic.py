"""Requests to replay on a saved plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, UnknownNameError
from planner.units import parse_rate, parse_tokens

ARRIVALS = ("poisson", "gamma", "deterministic", "on-off")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to send. ``None`` takes the value of the plan's own job.

    Attributes
    ----------
    rate, concurrency : requests/s of an open loop, or requests in flight of a closed one.
    arrivals : one of ARRIVALS; ``burstiness`` is the gamma shape (1 Poisson, below 1 bursts), or seconds of an on
        and an off phase.
    spread : coefficient of variation of both lengths (lognormal); 0 keeps them fixed.
    trace, speed, copies : recorded requests, time compressed by ``speed``, load multiplied by ``copies``.
    """

    rate: float | None = None
    concurrency: float | None = None
    isl: int | None = None
    osl: int | None = None
    requests: int | None = None
    arrivals: str = "poisson"
    burstiness: float = 0.5
    spread: float = 0.0
    trace: Path | None = None
    speed: float = 1.0
    copies: int = 1
    seed: int = 0


def parse_traffic(*, rate: str | None, isl: str | None, osl: str | None, **rest: Any) -> Traffic:
    """Read the options of ``planner simulate``. Raises InputError naming the option."""
    traffic = Traffic(
        rate=None if rate is None else parse_rate(rate, "--rate"),
        isl=None if isl is None else parse_tokens(isl, "--isl"),
        osl=None if osl is None else parse_tokens(osl, "--osl"),
        **rest,
    )
    if traffic.arrivals not in ARRIVALS:
        raise UnknownNameError("arrival process", traffic.arrivals, ARRIVALS)
    if traffic.rate is not None and traffic.concurrency is not None:
        raise InputError("give --rate (open loop) or --concurrency (closed loop), not both")
    for name in ("concurrency", "burstiness", "speed"):
        value = getattr(traffic, name)
        if value is not None and not 0 < value < 1e9:
            raise InputError(f"--{name} is {value:g}; it must be a finite number above zero")
    if not 0 <= traffic.spread <= 100:
        raise InputError(f"--spread is {traffic.spread:g}; it must be 0 to 100", hint="1 is as variable as exponential")
    own = (traffic.rate, traffic.concurrency, traffic.isl, traffic.osl, traffic.spread or None)
    if traffic.trace is not None and any(value is not None for value in own):
        raise InputError("--trace brings its own arrivals and lengths", hint="scale it with --speed and --copies")
    if traffic.trace is None and (traffic.speed, traffic.copies) != (1.0, 1):
        raise InputError("--speed and --copies scale a --trace, and none is given")
    return traffic

"""Percentiles of the wait before a prefill, without simulation.

Load rho = rate * E[S] < 1, one server, first come first served. Errors are against 10^6 simulated arrivals (the
Lindley recursion; tests/simulation/test_queueing_theory.py shows that the event simulation gives the same waits):

* Pollaczek-Khinchine mean: exact; sampling error only (within 2 %).
* exponential tail, p95/p99: M/D/1 at rho 0.6 to 0.9 +1..+7 % / +2..+11 %, at rho 0.3 +10 / +19 % (cautious);
  exponential service -1..-4 % / -3..-8 %; lognormal service with a variation of 2: -11..+2 / -33..-6 %, so
  do not use it for heavy-tailed prompts: take ``lindley_waits`` with the real lengths.
* Lindley recursion: exact for the given sample; about 0.2 s for 10^6 arrivals.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from planner.units import PerSecond, Seconds

Samples = NDArray[np.float64]


def mean_wait(rate: PerSecond, service_mean: Seconds, service_cv: float) -> Seconds:
    """Mean wait in an M/G/1 queue: E[W] = rate * E[S^2] / (2 (1 - rho)), E[S^2] = E[S]^2 (1 + cv^2). inf if rho >= 1.

    Pollaczek-Khinchine; Kleinrock, Queueing Systems I, section 5.6.
    """
    load = rate * service_mean
    if load >= 1:
        return math.inf
    return rate * service_mean**2 * (1 + service_cv**2) / (2 * (1 - load))


def mean_wait_deterministic(rate: PerSecond, service: Seconds) -> Seconds:
    """Mean wait in an M/D/1 queue: E[W] = rho S / (2 (1 - rho)); the DistServe TTFT is S plus this."""
    return mean_wait(rate, service, 0.0)


def wait_quantile(share: float, rate: PerSecond, service_mean: Seconds, service_cv: float) -> Seconds:
    """Wait that ``share`` of the requests stay below: P(W > t) = rho exp(-rho t / E[W]); 0 if share <= 1 - rho."""
    load = rate * service_mean
    if load >= 1:
        return math.inf
    if share <= 1 - load:
        return 0.0
    return mean_wait(rate, service_mean, service_cv) / load * math.log(load / (1 - share))


def response_quantiles(
    rate: PerSecond, service: Samples, shares: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> tuple[Seconds, ...]:
    """Quantiles of wait + service (for a prefill: of the TTFT) with the exponential tail, convolved with ``service``.

    P(W + S > t) = E_S[ 1 if S > t else rho exp(-rho (t - S) / E[W]) ], solved for t by bisection.

    Parameters
    ----------
    service : sample or support of service times (s), every value alike.
    """
    mean = float(service.mean())
    load = rate * mean
    if load >= 1:
        return tuple(math.inf for _ in shares)
    wait = mean_wait(rate, mean, float(service.std()) / mean)
    return tuple(_solve_tail(1 - share, load, wait, service) for share in shares)


def _solve_tail(tail: float, load: float, wait: Seconds, service: Samples) -> Seconds:
    def beyond(t: float) -> float:
        rest = np.maximum(0.0, t - service)
        return (
            float(np.mean(np.where(service > t, 1.0, load * np.exp(-load * rest / wait))))
            if wait
            else float(np.mean(service > t))
        )

    low, high = 0.0, float(service.max()) + wait / max(load, 1e-12) * math.log(1 / tail) + 1e-12
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if beyond(middle) > tail else (low, middle)
    return high


def lindley_waits(gaps: Samples, service: Samples) -> Samples:
    """Waits of consecutive requests of one server: W_{n+1} = max(0, W_n + S_n - A_{n+1}), vectorised.

    With the walk P_n = sum_{i<n} (S_i - A_{i+1}) it is W_n = P_n - min_{k<=n} P_k: the walk reflected at zero.

    Parameters
    ----------
    gaps : time from the previous arrival to each one (s); the first is not used. service : service times (s).
    """
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    waits: Samples = walk - np.minimum.accumulate(walk)
    return waits


def simulated_response_quantiles(
    rate: PerSecond,
    service: Samples,
    shares: tuple[float, ...] = (0.5, 0.95, 0.99),
    *,
    arrivals: int = 200_000,
    seed: int = 0,
) -> tuple[Seconds, ...]:
    """Quantiles of wait + service for Poisson arrivals whose service times are drawn from ``service`` (s).

    Valid for any distribution; about 40 ms for the default number of arrivals. The first tenth is left out.
    """
    if rate * float(service.mean()) >= 1:
        return tuple(math.inf for _ in shares)
    rng = np.random.default_rng(seed)
    drawn = service[rng.integers(0, len(service), arrivals)]
    response = (lindley_waits(rng.exponential(1 / rate, arrivals), drawn) + drawn)[arrivals // 10 :]
    return tuple(float(v) for v in np.quantile(response, shares))

"""The last load that keeps the limits, found on many rows at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from planner.serving.layout import Array

_WIDTH = 1e-12  # of a bracket, relative, at which a row is settled
_MOST = 60


def last_kept(margin: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The largest x in [low, high] whose ``margin`` is not negative, [rows]; ``low`` where no x has one.

    ``margin`` must fall from its first negative value on. Inverse quadratic interpolation inside a shrinking bracket,
    bisection where that would not help (T. R. Chandrupatla, Advances in Engineering Software 28 (1997) 145): about ten
    evaluations, where bisection alone takes forty. What comes out keeps the limits itself, at most 1e-12 below the
    crossing.
    """
    a, b = high.copy(), low.copy()
    fa, fb = margin(a), margin(b)
    c, fc = b.copy(), fb.copy()
    settled = (fa >= 0) | (fb < 0)
    best = np.where(fa >= 0, high, low)
    t = np.full(a.shape, 0.5)
    for _ in range(_MOST):
        if settled.all():
            break
        x = a + t * (b - a)
        fx = margin(x)
        same = (fx >= 0) == (fa >= 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        best = np.where(settled, best, np.where(fa >= 0, a, b))
        least = _WIDTH * np.maximum(np.abs(a), np.abs(b)) / np.maximum(np.abs(b - a), 1e-300)
        settled = settled | (least > 0.5)
        with np.errstate(all="ignore"):  # rows without a curve to follow are bisected
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            curved = (phi**2 < xi) & ((1.0 - phi) ** 2 < 1.0 - xi)
            inverse = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        t = np.where(curved & np.isfinite(inverse), inverse, 0.5)
        t = np.clip(t, np.minimum(least, 0.5), np.maximum(1.0 - least, 0.5))
    return best

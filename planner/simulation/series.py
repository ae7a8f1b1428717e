"""Closed-form sums of consecutive decode iterations.

While a batch of b sequences does not change, every iteration adds b tokens to the context C, so
iteration j (from 0) lasts f(C + j*b). f is piecewise affine: inside a piece the times are an
arithmetic series and n iterations last n*first + slope*n*(n-1)/2. Lanes that wait for each other (attention
data parallelism, pipeline micro-batches) last as long as the slowest: the maximum of affine functions
is again piecewise affine, split where another lane takes over.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final, NamedTuple

from planner.simulation.steps import Curve

# Two times that differ by less are one moment: rounding must not decide who comes first. Both modes use it.
TIE: Final = 1e-9


class Segment(NamedTuple):
    """``length`` iterations whose times are first, first + slope, first + 2*slope ... (s)."""

    length: int
    first: float
    slope: float


class Load(NamedTuple):
    """One lane at the start of a span: tokens that its context grows by per iteration (one a sequence, more with
    drafts), the total context, its time curve."""

    pace: float
    context: float
    curve: Curve


def decode_segments(loads: list[Load], iterations: int) -> list[Segment]:
    """Cut ``iterations`` iterations of these lanes into arithmetic series.

    Of lanes with as many sequences, hence one curve and one growth, only the one with the longest contexts can be the
    slowest.
    """
    if len(loads) > 1:
        longest: dict[float, Load] = {}
        for load in loads:
            known = longest.get(load.pace)
            if known is None or load.context > known.context:
                longest[load.pace] = load
        loads = list(longest.values())
    if len(loads) == 1:
        return _one_lane(loads[0], iterations)
    out: list[Segment] = []
    done = 0
    while done < iterations:
        segment = _slowest(loads, done, iterations - done)
        out.append(segment)
        done += segment.length
    return out


def _one_lane(load: Load, left: int) -> list[Segment]:
    pace, context, (knots, seconds, slopes) = load
    piece = max(0, bisect_right(knots, context) - 1)
    last = len(knots) - 1
    out: list[Segment] = []
    while True:
        slope = slopes[piece]
        first = seconds[piece] + slope * (context - knots[piece])
        length = left
        if piece < last:
            length = min(left, max(1, math.ceil((knots[piece + 1] - context) / pace)))
        out.append(Segment(length, first, slope * pace))
        left -= length
        if not left:
            return out
        context += length * pace
        while piece < last and knots[piece + 1] <= context:
            piece += 1


def _slowest(loads: list[Load], done: int, left: int) -> Segment:
    """Return the series of the slowest lane from iteration ``done`` until it changes piece or is overtaken."""
    lanes = []
    for load in loads:
        length, first, slope = _one_lane(load._replace(context=load.context + done * load.pace), left)[0]
        lanes.append((first, slope, length))
    first, slope, _ = max(lanes)
    length = min(lane[2] for lane in lanes)
    for other, steeper, _ in lanes:
        if steeper > slope:
            length = min(length, math.floor((first - other) / (steeper - slope)) + 1)
    return Segment(max(1, length), first, slope)


def elapsed(segments: list[Segment], iterations: int) -> float:
    """Seconds of the first ``iterations`` iterations."""
    total = 0.0
    for length, first, slope in segments:
        n = min(length, iterations)
        total += n * first + slope * (0.5 * n * (n - 1))
        iterations -= n
        if iterations <= 0:
            break
    return total


def iterations_until(segments: list[Segment], moment: float) -> int:
    """Return the fewest iterations, at least one, that end at or after ``moment`` (s from the start), else all."""
    done, start = 0, 0.0
    for length, first, slope in segments:
        end = start + length * first + slope * (0.5 * length * (length - 1))
        if end >= moment - TIE:
            return max(1, done + _solve(first, slope, moment - TIE - start, length))
        done, start = done + length, end
    return max(1, done)


def iterations_completed(segments: list[Segment], moment: float) -> int:
    """Return the number of iterations that ended at or before ``moment`` seconds from the start."""
    done, start = 0, 0.0
    for length, first, slope in segments:
        end = start + length * first + slope * (0.5 * length * (length - 1))
        if end > moment:
            n = _solve(first, slope, moment - start, length)
            return done + n - (start + n * first + slope * (0.5 * n * (n - 1)) > moment)
        done, start = done + length, end
    return done


def _solve(first: float, slope: float, target: float, length: int) -> int:
    """Smallest n in [0, length] with n*first + slope*n*(n-1)/2 >= target."""
    if target <= 0:
        return 0
    linear = first - 0.5 * slope
    # The stable root of (slope/2) n^2 + linear n - target: no cancellation when the slope is tiny.
    root = linear + math.sqrt(max(0.0, linear * linear + 2.0 * slope * target))
    n = min(length, math.ceil(2.0 * target / root)) if root > 0 else length
    while n > 0 and (n - 1) * first + slope * (0.5 * (n - 1) * (n - 2)) >= target:
        n -= 1
    while n < length and n * first + slope * (0.5 * n * (n - 1)) < target:
        n += 1
    return n

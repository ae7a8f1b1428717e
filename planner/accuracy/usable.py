"""What measurements cannot be calibrated on: no numbers, wrong units, figures that contradict each other."""

from __future__ import annotations

from planner.accuracy.measured import Measured, gpus
from planner.errors import InputError
from planner.serving.estimated import Estimate

COLUMNS = {
    "ttft_ms": "ttft", "tpot_ms": "tpot", "output_tok_s_per_gpu": "output_rate_per_gpu", "e2e_latency_ms": "e2e",
}  # fmt: skip
_HINT = "times are in milliseconds, throughput in output tokens/s per GPU, lengths in tokens; check the layout too"
# Measured over predicted. Published points lie within 0.25 to 4 of the prediction, first tokens within 0.2 to 105 (they
# queue); a wrong unit is off by 1,000.
_LIMITS = {"tpot": (0.1, 10.0), "output_rate_per_gpu": (0.1, 10.0), "e2e": (0.1, 10.0), "ttft": (0.02, 300.0)}
_LITTLE = 3.0  # published closed loops keep Little's law to 0.72 to 1.06


def refuse_unusable(measured: Measured, estimate: Estimate) -> None:
    """Raise InputError for a result without usable numbers, or one that no deployment can have shown.

    Refused are times and rates that are no number above zero, closed loops that break Little's law (requests in flight
    = requests/s * seconds in the system) threefold, and figures ten times off the prediction, which are units.
    """
    name, extra = measured.point.id, measured.point.extra
    for column, member in COLUMNS.items():
        if str(extra.get(column) or "").strip() and getattr(measured, member) is None:
            raise InputError(f"result {name}: {column} is {extra[column]!r}; it must be a number above zero")
    if not any(getattr(measured, member) for member in COLUMNS.values()):
        raise InputError(f"result {name}: nothing was measured", hint=f"columns: {', '.join(COLUMNS)}")
    _refuse_broken_loop(measured)
    if estimate.status != "ok":
        raise InputError(f"result {name}: {estimate.reason}")
    for member, (theirs, ours) in measured.pairs(estimate).items():
        low, high = _LIMITS[member]
        if not low <= theirs / ours <= high:
            scale, unit = (1.0, "tokens/s per GPU") if member == "output_rate_per_gpu" else (1e3, "ms")
            raise InputError(
                f"result {name}: {member.replace('output_rate_per_gpu', 'throughput')} of {theirs * scale:.4g} {unit}, "
                f"where {ours * scale:.3g} is expected",
                hint=_HINT,
            )


def _refuse_broken_loop(measured: Measured) -> None:
    point, rate = measured.point, measured.output_rate_per_gpu
    if point.mode == "static" or not (rate and measured.tpot and measured.ttft):
        return
    in_flight = rate * gpus(point) / point.osl * (measured.ttft + point.osl * measured.tpot)
    if not 1 / _LITTLE <= in_flight / point.concurrency <= _LITTLE:
        raise InputError(
            f"result {point.id}: throughput and latencies imply {in_flight:.3g} requests in flight, "
            f"not {point.concurrency:g}",
            hint=_HINT,
        )

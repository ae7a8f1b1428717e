"""From the words of the command line to a validated Job."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import ValidationError

from planner.errors import InputError, UnknownNameError
from planner.job.fleet import parse_fleet
from planner.job.invalid import invalid_option
from planner.job.job import OBJECTIVES, Job
from planner.job.slo import Percentile, Slo
from planner.job.speculating import parse_speculating
from planner.job.tuning import parse_tuning
from planner.job.workload import Workload
from planner.units import parse_duration, parse_fraction, parse_money, parse_rate, parse_tokens

MODES_BUILT = ("aggregated", "pd", "af")


def parse_job(
    *,
    model: str,
    fleet: str,
    isl: str | None,
    osl: str | None,
    rate: str | None = None,
    concurrency: float | None = None,
    prefix_hit: str = "0",
    ttft: str | None = None,
    tpot: str | None = None,
    e2e: str | None = None,
    percentile: str = "p95",
    objective: str | None = None,
    modes: str = "aggregated",
    weights: str | None = None,
    kv: str | None = None,
    engine: str = "vllm",
    budget: str | None = None,
    top: int = 5,
    simulate_top: int = 5,
    seed: int = 0,
    speculate: str | None = None,
    acceptance: str | None = None,
    draft_tokens: int | str | None = None,
    tp_overlap: str | None = None,
    two_batch_overlap: bool = False,
    redundant_experts: int | None = None,
    expert_imbalance: float | None = None,
    kv_transfer: str | None = None,
    kv_compression: float | None = None,
    cp: str | None = None,
) -> Job:
    """Read every option with its unit. Raises InputError naming the option."""
    lengths = {"isl": parse_length(isl, "--isl"), "osl": parse_length(osl, "--osl")}
    load = {"rate": None if rate is None else parse_rate(rate, "--rate"), "concurrency": concurrency}
    limits = {
        name: None if text is None else parse_duration(text, f"--{name}")
        for name, text in (("ttft", ttft), ("tpot", tpot), ("e2e", e2e))
    }
    _one_of(percentile, get_args(Percentile), "percentile")
    if objective is not None:
        _one_of(objective, OBJECTIVES, "objective")
    if not _names(modes):
        raise InputError("--modes: none given", hint=f"one or more of: {', '.join(MODES_BUILT)}")
    for mode in _names(modes):
        _one_of(mode, MODES_BUILT, "mode")
    for option, given in (("--kv-transfer", kv_transfer), ("--kv-compression", kv_compression)):
        if given is not None and set(_names(modes)) == {"aggregated"}:
            raise InputError(f"{option}: no cache travels in aggregated plans", hint="add --modes aggregated,pd")
    try:
        return Job(
            model=model,
            fleet=parse_fleet(fleet),
            workload=Workload(**lengths, **load, prefix_hit=parse_fraction(prefix_hit, "--prefix-hit")),
            slo=Slo(**limits, percentile=percentile),
            objective=objective,
            modes=_names(modes),
            weights=_names(weights),
            kv=_names(kv),
            engine=engine,
            budget=None if budget is None else parse_money(budget, "--budget"),
            top=top,
            simulate_top=simulate_top,
            seed=seed,
            speculate=parse_speculating(speculate, acceptance, draft_tokens),
            cp=_widths(cp, "--cp"),
            tuning=parse_tuning(
                tp_overlap, two_batch_overlap, redundant_experts, expert_imbalance, kv_transfer, kv_compression
            ),
        )
    except ValidationError as problem:
        raise invalid_option(problem) from None


def parse_length(text: str | None, option: str) -> int:
    """Read a token count that must be given."""
    if text is None:
        raise InputError(f"{option} is missing", hint="mean tokens of a request, for example --isl 4000 --osl 1000")
    return parse_tokens(text, option)


def _widths(text: str | None, option: str) -> tuple[int, ...]:
    """Read widths as ``1,2,4``, in order."""
    words = _names(text)
    if text is not None and not (words and all(word.isdigit() and 1 <= int(word) <= 64 for word in words)):
        raise InputError(f"{option} {text!r}: expected widths of 1 to 64", hint=f"for example {option} 1,2,4")
    return tuple(sorted({int(word) for word in words}))


def _one_of(name: str, known: tuple[Any, ...], kind: str) -> None:
    if name not in known:
        raise UnknownNameError(kind, name, known, listing=None)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in (text or "").split(",") if part.strip())

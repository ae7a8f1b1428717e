"""Several models that share one fleet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner.api import Catalogs, compare
from planner.comparison import Comparison, Entry, FleetOffer, union_of
from planner.comparison.menus import Menus, Part, build_menus
from planner.errors import InputError
from planner.job.comparing import ComparisonRequest, parse_comparison
from planner.report.comparison import record
from planner.search.mixed import solve_fleet
from planner.serving.engine import load_engine

CHAT = {"model": "llama-3.1-8b", "isl": "1000", "osl": "200", "rate": "9/s"}
CODE = {"model": "qwen2.5-7b", "isl": "2000", "osl": "50", "rate": "7/s"}


def asked(*fleets: str, jobs: Path | None = None, **words: Any) -> ComparisonRequest:
    options: dict[str, Any] = {
        "model": None, "workload": None, "trace": None, "rate": None, "isl": None, "osl": None, "headroom": "100%",
        "spare": 0, "budget": None, "spot_share": None, "solver": "auto", "time_limit": "60s", "ttft": "1s",
        "tpot": "60ms", "weights": "bf16", "kv": "bf16",
    }  # fmt: skip
    return parse_comparison(fleet=list(fleets), jobs=jobs, **{**options, **words})


def written(folder: Path, *jobs: dict[str, str]) -> Path:
    path = folder / "jobs.yaml"
    rows = ["{" + ", ".join(f"{key}: {value}" for key, value in job.items()) + "}" for job in jobs]
    path.write_text("jobs:\n" + "".join(f"  - {row}\n" for row in rows))
    return path


def first(found: Comparison) -> Entry:
    return found.entries[0]


def cost(entry: Entry) -> float:
    return float("inf") if entry.plan is None else entry.plan.cost_usd_per_hour or 0.0


def menus(request: ComparisonRequest) -> tuple[Menus, FleetOffer]:
    known, engine = Catalogs(), load_engine("vllm")
    union = union_of([known.fleet_offer(fleet) for fleet in request.fleets])
    parts = [Part(job, known.model(job.job.model), engine, union.supplies) for job in request.jobs]
    return build_menus(parts, union, request), union


@pytest.mark.parametrize("rates", [("4/s", "2/s"), ("2/s", "3/s")])
def test_a_scarce_fleet_is_divided_as_well_as_by_trying_every_division(tmp_path: Path, rates: tuple[str, str]) -> None:
    jobs = written(tmp_path, {**CHAT, "rate": rates[0]}, {**CODE, "rate": rates[1]})
    found, union = menus(asked("l40s:3,l4:4", jobs=jobs))
    both = solve_fleet(found.menu, union.offers, scale=1.0)

    def alone(index: int, large: int, small: int) -> float:
        counts = {"l40s": large, "l4": small}
        result = solve_fleet(
            found.own[index], tuple(replace(o, available=counts[o.gpu]) for o in union.offers), scale=1.0
        )
        return float("inf") if result.plan is None else result.plan.cost

    sums = [alone(0, i, j) + alone(1, 3 - i, 4 - j) for i in range(4) for j in range(5)]
    assert min(sums) < float("inf") and both.status == "optimal" and both.plan is not None
    assert both.plan.cost == pytest.approx(min(sums))


def test_each_job_keeps_its_own_limits_and_rate_and_the_shares_add_up(tmp_path: Path) -> None:
    jobs = written(tmp_path, {**CHAT, "name": "chat", "tpot": "35ms"}, {**CODE, "name": "code"})
    entry = first(compare(asked("l40s:8", jobs=jobs)))
    assert entry.plan is not None
    (chat, its), (code, other) = entry.shares
    assert (chat, code) == ("chat", "code")
    assert its.predicted.tpot_ms.p95 <= 35 * 1.003 and other.predicted.tpot_ms.p95 <= 60 * 1.003
    assert its.predicted.request_rate == pytest.approx(9) and other.predicted.request_rate == pytest.approx(7)
    assert (its.cost_usd_per_hour or 0) + (other.cost_usd_per_hour or 0) == pytest.approx(cost(entry))
    assert its.gpus_total + other.gpus_total == entry.plan.gpus_total
    assert [row["job"] for row in record(compare(asked("l40s:8", jobs=jobs)))["fleets"][0]["jobs"]] == ["chat", "code"]


def test_each_job_drafts_as_it_says_and_a_draft_that_pays_makes_it_cheaper(tmp_path: Path) -> None:
    drafts = {**CHAT, "name": "chat", "tpot": "12ms", "speculate": "eagle", "acceptance": "0.8", "draft_tokens": "2"}
    found = compare(asked("l40s:16", jobs=written(tmp_path, drafts, {**CODE, "name": "code"})))
    (_, chat), (_, code) = first(found).shares
    assert all(pool.speculation is not None and pool.speculation.tokens == 2 for pool in chat.pools)
    assert all(pool.speculation is None for pool in code.pools)
    assert found.warnings == ()  # the acceptance was given
    plain = first(compare(asked("l40s:16", **{**CHAT, "tpot": "12ms"})))
    assert (chat.cost_usd_per_hour or 0.0) < cost(plain)


def test_with_enough_gpus_jobs_cost_what_they_cost_alone(tmp_path: Path) -> None:
    both = first(compare(asked("l40s:32", jobs=written(tmp_path, CHAT, CODE))))
    assert cost(both) == pytest.approx(sum(cost(first(compare(asked("l40s:32", **job)))) for job in (CHAT, CODE)))


def test_what_does_not_fit_names_the_job(tmp_path: Path) -> None:
    jobs = written(tmp_path, CHAT, {**CODE, "rate": "900/s"})
    entry = first(compare(asked("l40s:3", jobs=jobs)))
    assert entry.plan is None and entry.reason is not None and "request class qwen2.5-7b" in entry.reason


@pytest.mark.parametrize(
    ("jobs", "words", "message"),
    [
        ([CHAT, {"model": "qwen2.5-7b", "isl": "1k", "osl": "10"}], {}, "job 2: rate is missing"),
        ([CHAT, CHAT], {}, "two jobs are called 'llama-3.1-8b'"),
        ([CHAT, {**CODE, "speed": "9"}], {}, "job 2: unknown key 'speed'"),
        ([CHAT, {**CODE, "rate": "fast"}], {}, "job 2: --rate"),
        ([{"isl": "1k"}], {}, "job 1: model is missing"),
        ([], {}, "no jobs"),
        ([CHAT], {"model": "llama-3.1-8b"}, "MODEL 'llama-3.1-8b' and --jobs"),
        ([CHAT], {"rate": "5/s"}, "--rate and --jobs"),
        ([{**CHAT, "speculate": "ngram", "draft_tokens": "many"}], {}, "job 1: --draft-tokens many"),
        ([{**CHAT, "acceptance": "0.5"}], {}, "job 1: --acceptance says nothing without --speculate"),
    ],
)
def test_mistakes_in_the_file_are_one_clear_line(
    tmp_path: Path, jobs: list[dict[str, str]], words: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        asked("l40s:2", jobs=written(tmp_path, *jobs), **words)
    assert message in str(caught.value)


def test_the_command_shows_a_table_by_job(command: Callable[..., Any], tmp_path: Path) -> None:
    jobs = written(tmp_path, {**CHAT, "name": "chat"}, {**CODE, "name": "code", "ttft": "2s"})
    ran = command("compare", "--jobs", jobs, "--fleet", "l40s:8", "--tpot", "60ms", "--weights", "bf16")
    assert ran.code == 0, ran.err
    assert "Each model on l40s:8" in ran.out and "qwen2.5-7b" in ran.out

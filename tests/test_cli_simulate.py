"""``planner simulate``: a saved plan under another load, request by request."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

from planner.api import search
from planner.job.parse import parse_job
from planner.plan import PlanFile, to_json

Command = Callable[..., Any]
SAMPLES = {
    "mooncake_conversation_300.jsonl": 300,
    "mooncake_synthetic_300.jsonl": 300,
    "azure_llm_2023_code_500.csv": 500,
    "azure_llm_2023_conv_500.csv": 500,
    "burstgpt_format_3.csv": 3,
}
LATENCIES = ("ttft_ms", "tpot_ms", "e2e_ms")


def searched(**words: Any) -> PlanFile:
    asked = {"model": "llama-3.1-8b", "fleet": "h100-sxm:2", "isl": "1000", "osl": "200", "simulate_top": 0, **words}
    return search(parse_job(**asked))


@pytest.fixture(scope="module")
def saved() -> PlanFile:
    return searched(ttft="500ms", tpot="20ms", weights="fp8")


@pytest.fixture
def plan(saved: PlanFile, tmp_path: Path) -> Path:
    """A saved search whose plans carry as much as 500 ms and 20 ms allow."""
    path = tmp_path / "plan.json"
    path.write_text(to_json(saved))
    return path


def replayed(command: Command, *words: object) -> dict[str, Any]:
    ran = command("simulate", *words, "-o", "json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = strict_json(ran.out)
    return found


def test_the_json_has_the_keys_of_the_contract(command: Command, plan: Path, saved: PlanFile) -> None:
    found = replayed(command, plan, "--rate", "40/s", "--requests", "1000")
    assert set(found) >= {"requests", "elapsed_s", "stable", "simulated", "slo_attainment"}
    assert found["requests"] == found["submitted"] == 1000 and found["stable"] is True
    seen, predicted = found["simulated"], saved.plans[0].predicted.model_dump()
    assert set(seen) >= set(predicted)
    for metric in LATENCIES:
        assert set(seen[metric]) >= set(predicted[metric])
        values = [seen[metric][p] for p in ("p50", "p90", "p95", "p99")]
        assert values == sorted(values) and values[0] > 0
    assert 0 <= found["slo_attainment"] <= 1
    assert found["goodput_rps"] == pytest.approx(found["slo_attainment"] * seen["request_rate"], rel=1e-5)
    assert seen["output_tok_s"] == pytest.approx(200 * seen["request_rate"], rel=0.1)
    assert seen["output_tok_s_per_gpu"] == pytest.approx(seen["output_tok_s"] / 2, rel=1e-5)
    # End to end is the first token and 199 more, for every request and so for the mean.
    assert seen["e2e_ms"]["mean"] == pytest.approx(seen["ttft_ms"]["mean"] + 199 * seen["tpot_ms"]["mean"], rel=1e-4)


def test_without_a_load_the_plans_own_is_replayed(command: Command, plan: Path, saved: PlanFile) -> None:
    found = replayed(command, plan)
    assert found["requests"] == 5000
    assert found["simulated"]["request_rate"] == pytest.approx(saved.plans[0].predicted.request_rate, rel=0.04)


def test_above_capacity_is_unstable_without_latencies(command: Command, plan: Path, saved: PlanFile) -> None:
    """The wait would grow as long as one looks, so there is no latency to report; what is served, there is."""
    rate = saved.plans[0].predicted.request_rate * 5
    found = replayed(command, plan, "--rate", f"{rate}/s", "--requests", "3000")
    assert found["stable"] is False and found["verdict"].startswith("unstable: ")
    assert all(value is None for metric in LATENCIES for value in found["simulated"][metric].values())
    assert 0 < found["simulated"]["request_rate"] < rate
    assert found["slo_attainment"] < 0.5
    shown = command("simulate", plan, "--rate", f"{rate}/s", "--requests", "3000")
    assert shown.code == 0 and "unstable" in shown.out.lower() and "inf" not in shown.out and "nan" not in shown.out


@pytest.mark.parametrize("requests", [60, 300])
def test_a_burst_shorter_than_a_request_proves_no_stability(command: Command, plan: Path, requests: int) -> None:
    """Once it was called stable at whatever rate it came."""
    assert "too few to tell" in command("simulate", plan, "--rate", "2000/s", "--requests", requests).out


@pytest.mark.parametrize("rate", ["1e-9/s", "1e9/s"])
def test_extreme_rates_are_answered(command: Command, plan: Path, rate: str) -> None:
    found = replayed(command, plan, "--rate", rate, "--requests", "500")
    assert found["requests"] == 500 and found["stable"] is (rate == "1e-9/s")


def test_a_closed_loop_keeps_its_users_in_flight(command: Command, plan: Path) -> None:
    found = replayed(command, plan, "--concurrency", "32", "--requests", "2000")
    seen = found["simulated"]
    assert seen["request_rate"] * seen["e2e_ms"]["mean"] / 1e3 == pytest.approx(32, rel=0.05)  # Little's law
    more = replayed(command, plan, "--concurrency", "64", "--requests", "2000")["simulated"]
    assert more["output_tok_s"] > seen["output_tok_s"] and more["tpot_ms"]["mean"] > seen["tpot_ms"]["mean"]


def test_more_users_than_requests_is_no_nan(command: Command, plan: Path) -> None:
    found = replayed(command, plan, "--concurrency", "1000", "--requests", "100")
    assert found["requests"] == 100 and "nan" not in found["verdict"]


def test_other_lengths_change_what_is_sent(command: Command, plan: Path) -> None:
    short = replayed(command, plan, "--rate", "5/s", "--requests", "300")["simulated"]
    long = replayed(command, plan, "--rate", "5/s", "--requests", "300", "--isl", "8k", "--osl", "400")["simulated"]
    assert long["ttft_ms"]["mean"] > 2.5 * short["ttft_ms"]["mean"]
    assert long["output_tok_s"] == pytest.approx(2 * short["output_tok_s"], rel=0.1)
    one = replayed(command, plan, "--rate", "5/s", "--requests", "50", "--osl", "1")["simulated"]
    assert set(one["tpot_ms"].values()) == {None} and one["e2e_ms"] == one["ttft_ms"]


def test_requests_beyond_the_kv_cache_are_refused_and_counted(command: Command, plan: Path) -> None:
    found = replayed(command, plan, "--rate", "1/s", "--requests", "20", "--isl", "50m")
    assert (found["requests"], found["refused"]) == (0, 20)
    assert set(found["simulated"]["ttft_ms"].values()) == {None}


def test_a_seed_decides_everything(command: Command, plan: Path) -> None:
    def run(seed: int) -> dict[str, Any]:
        found = replayed(command, plan, "--rate", "40/s", "--spread", "0.5", "--requests", "500", "--seed", seed)
        del found["elapsed_s"]
        return found

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_burstier_arrivals_wait_longer(command: Command, plan: Path) -> None:
    words = (plan, "--rate", "80/s", "--requests", "3000", "--arrivals")
    evenly, poisson, bursts = (
        replayed(command, *words, *more)["simulated"]["ttft_ms"]["p99"]
        for more in (("deterministic",), ("poisson",), ("gamma", "--burstiness", "0.1"))
    )
    assert evenly < poisson < bursts


def test_every_plan_of_the_file_can_be_replayed(command: Command, plan: Path, saved: PlanFile) -> None:
    for rank in range(1, len(saved.plans) + 1):
        found = replayed(command, plan, "--plan", rank, "--rate", "5/s", "--requests", "100")
        assert found["requests"] == 100
    refused(command("simulate", plan, "--plan", 99), "--plan 99", "1 to")


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_plans_of_other_engines_are_replayed_by_their_rules(command: Command, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(to_json(searched(rate="20/s", engine=engine)))
    found = replayed(command, path, "--requests", "500")
    assert found["stable"] and found["slo_attainment"] is None and found["preemptions"] == 0


@pytest.mark.parametrize("name", SAMPLES)
def test_published_traces_are_replayed(command: Command, plan: Path, shared: Path, name: str) -> None:
    found = replayed(command, plan, "--trace", shared / "traces" / name)
    assert found["requests"] == found["submitted"] == SAMPLES[name]
    assert found["trace_rows_dropped"] is None
    # Hits of a cache that forgets nothing and that all requests share: an upper bound.
    hits, tokens, known = 0, 0, set[int]()
    for line in (shared / "traces" / name).read_text().splitlines() if name.endswith("jsonl") else ():
        row = json.loads(line)
        again = len(list(itertools.takewhile(lambda h: h in known, row["hash_ids"])))
        hits, tokens = hits + min(again * 512, row["input_length"]), tokens + row["input_length"]
        known.update(row["hash_ids"])
    most = hits / max(tokens, 1)
    assert 0.5 * most <= found["prefix_hit"] <= most


def mooncake(path: Path, rows: list[tuple[int, int, int, list[int]]]) -> Path:
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return path


def test_a_tiny_trace_is_replayed_row_by_row(command: Command, plan: Path, tmp_path: Path) -> None:
    """Two of four requests repeat the two full blocks of the first: 2 x 1024 of 4 x 1100 prompt tokens are hits."""
    rows = [(0, 1100, 10, [1, 2, 3]), (5000, 1100, 10, [1, 2, 4]), (10_000, 1100, 10, [7, 8, 9]),
            (15_000, 1100, 10, [1, 2, 5])]  # fmt: skip
    found = replayed(command, plan, "--trace", mooncake(tmp_path / "t.jsonl", rows))
    assert found["requests"] == 4
    assert found["prefix_hit"] == pytest.approx(2 * 1024 / 4400, rel=1e-3)
    twice = replayed(command, plan, "--trace", tmp_path / "t.jsonl", "--copies", "2", "--speed", "10")
    assert twice["requests"] == 8
    two = replayed(command, plan, "--trace", tmp_path / "t.jsonl", "--requests", "2")
    assert two["requests"] == 2


def test_rows_that_cannot_be_read_are_said(command: Command, plan: Path, tmp_path: Path) -> None:
    trace = mooncake(tmp_path / "t.jsonl", [(0, 100, 10, []), (1, 100, 10, [])])
    trace.write_text(trace.read_text() + "{broken\n")
    ran = command("simulate", plan, "--trace", trace, "-o", "json")
    assert ran.code == 0 and "1 malformed" in ran.err and "line 3" in ran.err
    assert "1 malformed" in strict_json(ran.out)["trace_rows_dropped"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "TIMESTAMP,ContextTokens\n1,2\n", "no column 'GeneratedTokens'"),
        ("b.csv", "Timestamp,Model,Response tokens\n1,2,3\n", "no column 'Request tokens'"),
        ("m.jsonl", '{"timestamp": 1, "input_length": 3}\n', "no column 'output_length'"),
        ("e.jsonl", "", "empty"),
        ("z.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n1,0,0\n", "no usable request"),
        ("p.csv", "\x00\x01\x02", "no column"),
    ],
)
def test_a_wrong_trace_is_refused_and_nothing_is_written(
    command: Command, plan: Path, tmp_path: Path, name: str, text: str, said: str
) -> None:
    trace = tmp_path / name
    trace.write_text(text)
    before = sorted(tmp_path.iterdir())
    words = ("--trace", trace, "--timeline", tmp_path / "line.csv", "--out", tmp_path / "seen.json")
    refused(command("simulate", plan, *words), name, said)
    assert sorted(tmp_path.iterdir()) == before


def test_the_timeline_is_written_as_csv_and_as_a_chrome_trace(command: Command, plan: Path, tmp_path: Path) -> None:
    words = ("simulate", plan, "--rate", "60/s", "--requests", "1500", "--timeline")
    assert command(*words, tmp_path / "line.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "line.csv").read_text().splitlines()))
    assert set(rows[0]) >= {"time_s", "running", "waiting", "kv_tokens", "preemptions"}
    times = [float(row["time_s"]) for row in rows]
    assert times == sorted(times) and len(times) > 50
    assert max(int(row["running"]) for row in rows) > 10 and max(int(row["kv_tokens"]) for row in rows) > 10_000
    assert command(*words, tmp_path / "line.json").code == 0
    events = strict_json((tmp_path / "line.json").read_text())["traceEvents"]
    assert {event["name"] for event in events} >= {"requests", "KV tokens"}
    assert all(event["ph"] == "C" and event["ts"] >= 0 for event in events)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["line.csv", "line.json", "plan.json"]


def test_files_hold_what_is_printed(command: Command, plan: Path, tmp_path: Path) -> None:
    ran = command("simulate", plan, "--rate", "5/s", "--requests", "50", "-o", "json", "--out", tmp_path / "s.json")
    assert ran.code == 0 and (tmp_path / "s.json").read_text() == ran.out
    table = command("simulate", plan, "--rate", "5/s", "--requests", "50")
    assert all(word in table.out for word in ("TTFT", "TPOT", "end to end", "stable at", "50 of 50 requests finished"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rate", "0/s"), "--rate"),
        (("--rate", "20"), "has no unit"),
        (("--rate", "-3/s"), "--rate"),
        (("--concurrency", "0"), "--concurrency"),
        (("--concurrency", "nan"), "--concurrency"),
        (("--concurrency", "inf"), "--concurrency"),
        (("--rate", "2/s", "--concurrency", "4"), "not both"),
        (("--requests", "0"), "--requests"),
        (("--isl", "0"), "--isl"),
        (("--osl", "1.5"), "--osl"),
        (("--spread", "-1"), "--spread"),
        (("--spread", "1e9"), "--spread"),
        (("--burstiness", "0"), "--burstiness"),
        (("--arrivals", "poison"), "did you mean poisson"),
        (("--seed", "-1"), "--seed"),
        (("--speed", "2"), "--trace"),
        (("--trace", "no-such-trace.csv"), "no-such-trace.csv"),
        (("--trace", "x.csv", "--rate", "2/s"), "--trace"),
        (("--trace", "x.csv", "--isl", "100"), "--trace"),
        (("--timeline", "line.txt"), "--timeline"),
        (("--timeline", "no/such/folder/line.csv"), "--timeline"),
        (("--output", "xml"), "unknown output format"),
        (("--out", "seen.pdf"), "--out"),
    ],
)
def test_a_bad_value_is_refused_by_option(
    command: Command, plan: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(plan.parent)
    refused(command("simulate", plan, *words), said)
    assert list(plan.parent.iterdir()) == [plan]


@pytest.mark.parametrize("text", ["", "[]", '{"format_version": "1.0", "plans": []}'])
def test_what_is_no_plan_is_refused(command: Command, tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    refused(command("simulate", path), "plan.json")
    refused(command("simulate", tmp_path / "absent.json"), "absent.json")


def test_a_plan_whose_question_was_edited_is_refused_where_it_is_wrong(
    command: Command, saved: PlanFile, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    job = {**saved.job, "workload": {**saved.job["workload"], "isl": 0}}
    path.write_text(to_json(saved.model_copy(update={"job": job})))
    for name in ("simulate", "explain"):
        refused(command(name, path), "the job of the plan: workload.isl is 0; it must be above 0")
    pool = {**saved.model_dump(mode="json"), "plans": [{"rank": 1}]}
    path.write_text(json.dumps(pool))
    refused(command("simulate", path), "plan.json: plans[0].mode is missing", "search --out plan.json")


def test_a_search_simulates_its_first_plans_unless_told_not_to(command: Command) -> None:
    words = ("search", "llama-3.1-8b", "--fleet", "h100-sxm:2", "--isl", "1000", "--osl", "200", "--rate", "30/s")
    limits = ("--ttft", "500ms", "--tpot", "20ms", "-o", "json")
    without = strict_json(command(*words, *limits, "--no-simulate").out)
    assert all(plan["simulated"] is None and plan["notes"] == [] for plan in without["plans"])
    two = strict_json(command(*words, *limits, "--simulate-top", "2").out)["plans"]
    assert [plan["simulated"] is not None for plan in two] == [True, True, False, False, False]
    for plan in two[:2]:
        assert set(plan["simulated"]) == set(plan["predicted"])
        assert plan["simulated"]["request_rate"] == plan["predicted"]["request_rate"] == 30
        assert plan["simulated"]["tpot_ms"]["mean"] == pytest.approx(plan["predicted"]["tpot_ms"]["mean"], rel=0.1)
    assert strict_json(command(*words, *limits, "--simulate-top", "2").out)["plans"] == two
    # Predicted and simulated stand side by side, or the prediction alone.
    assert "(sim)" in command(*words, "--simulate-top", "1").out
    assert "(sim)" not in command(*words, "--no-simulate").out


def test_a_replay_repeats_what_the_search_simulated(command: Command, tmp_path: Path) -> None:
    """The same rate on the same pools: only the arrivals that are drawn differ."""
    path = tmp_path / "plan.json"
    found = searched(rate="30/s", simulate_top=5)  # at 50/s one of them nears its capacity
    path.write_text(to_json(found))
    plans = [plan for plan in found.plans if plan.pools[0].layout.pp == 1]
    assert len(plans) > 1
    for plan in plans:
        seen = replayed(command, path, "--plan", plan.rank, "--requests", "2000")["simulated"]
        assert plan.simulated is not None
        assert seen["tpot_ms"]["mean"] == pytest.approx(plan.simulated.tpot_ms.mean, rel=0.08)
        assert seen["ttft_ms"]["mean"] == pytest.approx(plan.simulated.ttft_ms.mean, rel=0.08)

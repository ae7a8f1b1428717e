"""``planner compare``: the contract of its output and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_cases import refused, strict_json

Command = Callable[..., Any]
JOB = ("compare", "llama-3.1-8b", "--isl", "1000", "--osl", "200", "--weights", "bf16")


def test_the_json_has_the_keys_of_the_contract(command: Command, tmp_path: Path) -> None:
    words = (*JOB, "--fleet", "l40s:8", "--fleet", "h100-sxm:2", "--rate", "10/s", "-o", "json")
    ran = command(*words, "--out", tmp_path / "c.json")
    assert ran.code == 0, ran.err
    found = strict_json(ran.out)
    assert set(found) >= {"fleets", "marginal_value", "winner", "why"}
    assert [f["fleet"] for f in found["fleets"]] == ["l40s:8", "h100-sxm:2", "union", "unlimited l40s",
                                                     "unlimited h100-sxm"]  # fmt: skip
    for entry in found["fleets"]:
        assert entry["reason"] is None and entry["plan"]["predicted"]["request_rate"] == 10
        assert set(entry["plan"]["gpus"]) <= {"l40s", "h100-sxm"} and entry["plan"]["certificate"]["gap"] == 0
    assert all(set(m) == {"gpu", "usd_per_hour", "output_tok_s"} for m in found["marginal_value"])
    assert found["winner"] in ("l40s:8", "h100-sxm:2", "union") and found["winner"] in found["why"]
    assert (tmp_path / "c.json").read_text() == ran.out


def test_a_draft_is_offered_named_and_its_assumed_acceptance_said(command: Command, tmp_path: Path) -> None:
    words = (*JOB, "--fleet", "h100-sxm:2", "--tpot", "6ms", "--speculate", "eagle", "--draft-tokens", "3")
    ran = command(*words, "--save-plan", tmp_path / "plan.json")
    assert ran.code == 0, ran.err
    assert "eagle 3" in " ".join(ran.out.split()) and "assumed by method" in ran.err
    replayed = strict_json(command("simulate", tmp_path / "plan.json", "--requests", "100", "-o", "json").out)
    assert replayed["stable"] and replayed["simulated"]["tpot_ms"]["mean"] < 6  # 8.9 without a draft


@pytest.mark.parametrize("solver", ["highs", "scip", "cp-sat", "pulp-cbc"])
def test_no_solver_writes_on_stdout(command: Command, solver: str) -> None:
    strict_json(command(*JOB, "--fleet", "h100-sxm:3", "--solver", solver, "-o", "json").out)


@pytest.mark.parametrize(("rate", "code"), [("1e-9/s", 0), ("1e9/s", 1)])
def test_extreme_rates_are_answered(command: Command, rate: str, code: int) -> None:
    ran = command(*JOB, "--fleet", "h100-sxm:2", "--rate", rate, "-o", "json")
    given, alone = strict_json(ran.out)["fleets"]
    assert ran.code == code and (given["plan"] is None) is bool(code)
    assert alone["plan"]["predicted"]["request_rate"] == pytest.approx(float(rate.removesuffix("/s")))
    if code:
        assert "more needed" in given["reason"] and ran.err.startswith("error: no fleet can serve the job")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fleet", "h100-sxn:2"), "did you mean h100-sxm"),
        (("--fleet", "h100-sxm:0"), "--fleet"),
        (("--fleet", "absent.yaml"), "absent.yaml"),
        (("--fleet", "h100-sxm:2", "--rate", "0/s"), "--rate"),
        (("--fleet", "h100-sxm:2", "--headroom", "0"), "--headroom"),
        (("--fleet", "h100-sxm:2", "--headroom", "120%"), "--headroom"),
        (("--fleet", "h100-sxm:2", "--spare", "-1"), "--spare"),
        (("--fleet", "h100-sxm:2", "--budget", "0usd/h"), "--budget"),
        (("--fleet", "h100-sxm:2", "--spot-share", "2"), "--spot-share"),
        (("--fleet", "h100-sxm:2", "--solver", "gurobi"), "unknown solver"),
        (("--fleet", "h100-sxm:2", "--workload", "w.yaml"), "bring their own"),
        (("--fleet", "h100-sxm:2", "-o", "xml"), "unknown output format"),
        ((), "--fleet"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(command: Command, words: tuple[str, ...], said: str) -> None:
    refused(command(*JOB, *words), said)


def test_a_workload_and_a_trace_bring_their_own_load(command: Command, tmp_path: Path) -> None:
    mix = tmp_path / "w.yaml"
    mix.write_text(
        "classes:\n- {name: chat, isl: 500, osl: 200, rate: 4}\n- {name: rag, isl: 4000, osl: 100, rate: 1}\n"
    )
    words = ("compare", "llama-3.1-8b", "--fleet", "h100-sxm:2")
    found = strict_json(command(*words, "--workload", mix, "-o", "json").out)
    perf = found["fleets"][0]["plan"]["predicted"]
    assert perf["request_rate"] == pytest.approx(5)
    assert perf["output_tok_s"] == pytest.approx(4 * 200 + 100, rel=1e-4)
    assert found["bucketing"] is None
    trace = tmp_path / "b.csv"
    rows = [f"{second},m,{100 + second},{20 + second}" for second in range(11)]
    trace.write_text("Timestamp,Model,Request tokens,Response tokens\n" + "\n".join(rows) + "\n")
    found = strict_json(command(*words, "--trace", trace, "-o", "json").out)
    perf = found["fleets"][0]["plan"]["predicted"]
    assert perf["request_rate"] == pytest.approx(1.1) and "classes stand for the trace" in found["bucketing"]
    assert perf["output_tok_s"] == pytest.approx(sum(20 + s for s in range(11)) / 10, rel=1e-4)
    refused(command(*words, "--trace", trace, "--workload", mix), "not both")

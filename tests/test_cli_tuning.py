"""Overlap and balance of experts through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli_cases import refused, strict_json

Command = Callable[..., Any]
MODEL = "Qwen/Qwen3-30B-A3B"


def test_a_plan_records_what_it_counts_on_and_export_asks_for_it(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    ran = command(
        "search", MODEL, "--fleet", "h100-sxm:8", "--isl", "2000", "--osl", "200", "--tpot", "50ms", "--no-simulate",
        "--two-batch-overlap", "--redundant-experts", "2", "--tp-overlap", "50%", "--top", "200", "--out", path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    plans = json.loads(path.read_text())["plans"]
    wanted = {
        "communication_overlap": 0.5, "two_batch_overlap": True, "redundant_experts": 2, "expert_imbalance": None,
        "kv_transfer": None, "kv_compression": None,
    }  # fmt: skip
    layouts = [plan["pools"][0]["layout"] for plan in plans]
    sends = [x["attention_dp"] > 1 and x["ep"] == x["tp"] * x["attention_dp"] for x in layouts]
    for plan, overlaps in zip(plans, sends, strict=True):  # ranks without messages have none to hide
        assert plan["pools"][0]["tuning"] == wanted | {"two_batch_overlap": overlaps or None}
    wide = next(p["rank"] for p, x in zip(plans, layouts, strict=True) if x["ep"] == x["attention_dp"] == 8)
    assert "two batch overlap True" in command("explain", path, "--plan", wide).out
    out = tmp_path / "files"
    exported = command("export", path, "--plan", wide, "--to", "vllm", "--out", out)
    assert exported.code == 0 and "hide 50%" in exported.err
    script = (out / "worker.sh").read_text()
    assert "--enable-dbo\n  --all2all-backend deepep_low_latency\n" in script
    assert '"num_redundant_experts":16' in script  # two on each of eight ranks
    refused(command("export", path, "--plan", wide, "--to", "trtllm", "--out", tmp_path / "x"), "two-batch", code=3)


def test_an_estimate_takes_the_same_options(command: Command) -> None:
    one = (
        "estimate", MODEL, "--gpu", "h100-sxm", "--attention-dp", "8", "--ep", "8", "--isl", "2000", "--osl", "200",
        "--concurrency", "2048", "-o", "json",
    )  # fmt: skip
    plain = strict_json(command(*one).out)
    assert strict_json(command(*one, "--two-batch-overlap").out)["tpot_ms"] < plain["tpot_ms"]
    assert strict_json(command(*one, "--expert-imbalance", "3").out)["tpot_ms"] > plain["tpot_ms"]
    copies = strict_json(command(*one, "--redundant-experts", "4").out)
    assert copies["memory"]["weights_gib"] > plain["memory"]["weights_gib"]


def test_shares_and_counts_that_are_none_are_refused(command: Command) -> None:
    search = ("search", MODEL, "--fleet", "h100-sxm:8", "--isl", "2000", "--osl", "200")
    refused(command(*search, "--tp-overlap", "120%"), "--tp-overlap")
    refused(command(*search, "--redundant-experts", "99"), "--redundant-experts")
    refused(command(*search, "--expert-imbalance", "0.5"), "--expert-imbalance")
    refused(command(*search, "--modes", "pd", "--kv-transfer", "byte"), "--kv-transfer")
    refused(command(*search, "--kv-compression", "4"), "no cache travels")
    refused(command(*search, "--modes", "pd", "--kv-compression", "0.5"), "--kv-compression")


def test_a_cache_that_leaves_early_and_small_is_carried_through_plan_explain_simulation_and_export(
    command: Command, tmp_path: Path
) -> None:
    ask = (
        "search", "meta-llama/Llama-3.1-8B", "--fleet", "h100-sxm:16", "--isl", "8000", "--osl", "200", "--ttft", "2s",
        "--tpot", "30ms", "--modes", "pd", "--top", "1", "--no-simulate",
    )  # fmt: skip
    paths = [tmp_path / "plain.json", tmp_path / "tuned.json"]
    assert command(*ask, "--out", paths[0]).code == 0
    assert command(*ask, "--kv-transfer", "layer", "--kv-compression", "4", "--out", paths[1]).code == 0
    plain, tuned = (json.loads(path.read_text())["plans"][0] for path in paths)
    assert plain["pools"][0]["tuning"] is None
    assert {tuned["pools"][0]["tuning"][key] for key in ("kv_transfer", "kv_compression")} == {"layer", 4.0}
    assert tuned["predicted"]["output_tok_s"] >= plain["predicted"]["output_tok_s"]
    assert "kv transfer layer, kv compression 4" in command("explain", paths[1]).out
    assert command("simulate", paths[1], "--requests", "200").code == 0
    exported = command("export", paths[1], "--to", "vllm", "--out", tmp_path / "files")
    assert exported.code == 0, exported.err
    assert "by layer, in 1/4 of their bytes" in exported.err


def test_an_aggregated_plan_says_nothing_of_caches_that_travel(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    ask = ("search", "meta-llama/Llama-3.1-8B", "--fleet", "h100-sxm:1", "--isl", "1000", "--osl", "100")
    assert command(*ask, "--modes", "aggregated,pd", "--no-simulate", "--kv-transfer", "layer", "--out", path).code == 0
    assert json.loads(path.read_text())["plans"][0]["pools"][0]["tuning"] is None

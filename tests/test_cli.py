"""The command line as users meet it: exit codes, one error line and a hint, formats, files.

Most cases run inside this process (fixture ``command``); a few start a real one.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_cases import refused

from planner import __version__

Command = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[1]
SEARCH = (
    "search",
    "meta-llama/Llama-3.1-8B",
    "--fleet",
    "h100-sxm:2",
    "--isl",
    "1000",
    "--osl",
    "200",
    "--no-simulate",
)


def changed(**options: str) -> tuple[str, ...]:
    """Return SEARCH with some options set to other values; ``model`` is the argument."""
    words = list(SEARCH)
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name == "model":
            words[1] = value
        elif flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    return tuple(words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "meta-llama/Llama-3.1-7B"}, ("unknown model", "did you mean", "Llama-3.1-8B")),
        ({"fleet": "h100-sxn:4"}, ("unknown", "h100-sxn", "did you mean", "h100-sxm")),
        ({"engine": "vlm"}, ("unknown engine", "did you mean vllm")),
        ({"modes": "agregated"}, ("unknown mode", "did you mean aggregated")),
        ({"weights": "fp88"}, ("unknown weight precision", "did you mean", "fp8")),
        ({"kv": "bf61"}, ("unknown KV precision",)),
        ({"objective": "thruput"}, ("unknown objective", "did you mean throughput")),
        ({"output": "jsn"}, ("unknown output format", "did you mean json")),
        ({"percentile": "p42"}, ("unknown percentile",)),
    ],
)
def test_an_unknown_name_gets_a_suggestion(command: Command, change: dict, said: tuple[str, ...]) -> None:
    refused(command(*changed(**change)), *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"isl": "0"}, "--isl"),
        ({"osl": "-5"}, "--osl"),
        ({"isl": "nan"}, "--isl"),
        ({"osl": "inf"}, "--osl"),
        ({"rate": "0/s"}, "--rate"),
        ({"rate": "20"}, "has no unit"),
        ({"ttft": "500"}, "has no unit"),
        ({"tpot": "-30ms"}, "--tpot"),
        ({"e2e": "infs"}, "--e2e"),
        ({"concurrency": "0"}, "--concurrency"),
        ({"concurrency": "nan"}, "--concurrency"),
        ({"concurrency": "inf"}, "--concurrency"),
        ({"concurrency": "many"}, "--concurrency"),
        ({"prefix_hit": "1.5"}, "--prefix-hit"),
        ({"budget": "40"}, "--budget"),
        ({"budget": "0usd/h"}, "--budget"),
        ({"top": "0"}, "--top"),
        ({"fleet": ""}, "--fleet"),
        ({"fleet": "h100-sxm"}, "--fleet"),
        ({"fleet": "h100-sxm:0"}, "--fleet"),
        ({"fleet": "h100-sxm:8,,"}, "--fleet"),
        ({"fleet": "h100-sxm:1e3"}, "--fleet"),
        ({"fleet": "h100-sxm:999999999"}, "--fleet"),
        ({"catalog": "no/such/folder"}, "no/such/folder"),
        ({"frobnicate": "1"}, "--frobnicate"),
    ],
)
def test_a_bad_number_or_unit_is_refused_by_option(command: Command, change: dict, said: str) -> None:
    refused(command(*changed(**change)), said)


def test_rate_and_concurrency_exclude_each_other(command: Command) -> None:
    refused(command(*changed(rate="2/s", concurrency="4")), "--rate", "--concurrency", "not both")


def test_missing_lengths_are_asked_for(command: Command) -> None:
    refused(command("search", "llama-3.1-8b", "--fleet", "h100-sxm:2", "--osl", "200"), "--isl is missing")


def config(**changes: Any) -> dict[str, Any]:
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 4,
            "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 4096, "vocab_size": 32000,
            "torch_dtype": "bfloat16", **changes}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{" + '"a": "' + "x" * 10_000_000 + '"', "config.json"),
        ("not json at all", "config.json"),
        ("[1, 2]", "config.json"),
        ("", "config.json"),
        ("[" * 100_000, "config.json"),
        (json.dumps(config(hidden_size=float("inf"))), "hidden_size"),
        (json.dumps(config(num_hidden_layers=float("nan"))), "num_hidden_layers"),
        (json.dumps(config(num_hidden_layers=-4)), "num_hidden_layers"),
        (json.dumps(config(model_type="wonder")), "wonder"),
    ],
    ids=["10 MB", "words", "list", "empty", "deep", "Infinity", "NaN", "negative", "unknown type"],
)
def test_a_bad_config_is_refused_and_nothing_is_written(command: Command, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    plan = tmp_path / "plan.json"
    refused(command(*changed(model=str(path), out=str(plan))), said)
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_config_or_its_folder_is_a_model(command: Command, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config()))
    for model in (tmp_path, tmp_path / "config.json"):
        ran = command(*changed(model=str(model), output="json"))
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["plans"]


def test_a_folder_with_10_mb_of_valid_but_useless_config_still_answers_or_refuses_in_one_line(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config(notes="x" * 10_000_000)))
    ran = command(*changed(model=str(tmp_path), output="json"))
    if ran.code != 0:
        refused(ran, "config.json")
    else:
        assert len(ran.out) < 100_000


def test_heads_that_do_not_divide_are_rejected_by_name_not_planned(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(num_attention_heads=15, num_key_value_heads=5, hidden_size=960)))
    ran = command(*changed(model=str(path), fleet="h100-sxm:8", output="json"))
    found = json.loads(ran.out)
    assert {p["pools"][0]["layout"]["tp"] for p in found["plans"]} <= {1, 3, 5}
    assert "attention heads do not divide by tp" in {row["reason"] for row in found["search"]["rejected"]}
    single = (
        "estimate",
        str(path),
        "--gpu",
        "h100-sxm",
        "--tp",
        "2",
        "--isl",
        "100",
        "--osl",
        "10",
        "--concurrency",
        "1",
    )
    refused(command(*single), "heads divisible by 2")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tpot": "10us"}, ("misses tpot", "nearest miss", "h100-sxm")),
        ({"ttft": "1us"}, ("misses ttft", "nearest miss")),
        ({"rate": "1000000/s"}, ("fleet too small for the rate", "nearest miss", "GPUs")),
        ({"model": "deepseek-ai/DeepSeek-R1", "fleet": "l40s:1"}, ("does not fit in memory", "nearest miss", "GiB")),
        ({"budget": "0.01usd/h"}, ("no plan",)),
        ({"concurrency": "10000", "tpot": "1ms"}, ("misses tpot", "nearest miss")),
    ],
)
def test_a_request_that_no_plan_meets_ends_with_1_and_the_nearest_miss(
    command: Command, tmp_path: Path, change: dict, said: tuple[str, ...]
) -> None:
    plan = tmp_path / "plan.json"
    refused(command(*changed(**change, out=str(plan))), *said, code=1)
    assert not plan.exists()


@pytest.mark.parametrize("target", ["missing/plan.json", "folder.json", "plan.xyz", "plan", "missing.json/plan.json"])
def test_a_target_that_cannot_be_written_is_refused_before_any_work(
    command: Command, tmp_path: Path, target: str
) -> None:
    (tmp_path / "folder.json").mkdir()
    before = sorted(tmp_path.rglob("*"))
    refused(command(*changed(model="no-such-model", out=str(tmp_path / target))), "--out", target.split("/")[0])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        "../../etc/passwd",
        "<script>alert(1)</script>",
        "🦙 llama",
        "'; drop table models; --",
        '"quoted"',
        "[red]x[/red]",
        "x" * 100_000,
        "\x1b[31mred",
        "nul\x00byte",
        " ",
        "-",
        "%s%n",
        "C:\\model",
        "/dev/null",
        "a/" * 3000,
    ],
)
def test_hostile_model_names_are_refused_in_one_printable_line(command: Command, name: str) -> None:
    refused(command("search", "--fleet", "h100-sxm:1", "--isl", "10", "--osl", "10", "--", name))


@pytest.mark.parametrize("name", ["<b>🦙 'quoted' [red]", "a\nb"])
def test_hostile_folder_names_survive_as_model_paths(command: Command, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config()))
    for form in ("json", "table", "yaml", "csv", "md"):
        ran = command(*changed(model=str(folder), output=form))
        assert ran.code == 0, ran.err
    found = json.loads(command(*changed(model=str(folder), output="json")).out)
    assert found["job"]["model"] == str(folder)


def test_every_format_parses_and_tells_the_same_plans(command: Command) -> None:
    shown = {form: command(*SEARCH, "-o", form) for form in ("json", "yaml", "csv", "md", "table")}
    assert all(ran.code == 0 and ran.out for ran in shown.values())
    found, same = json.loads(shown["json"].out), yaml.safe_load(shown["yaml"].out)
    rows = list(csv.DictReader(io.StringIO(shown["csv"].out)))
    marks = [line for line in shown["md"].out.splitlines() if line.startswith("| ")]
    assert same["plans"] == found["plans"]
    assert len(rows) == len(found["plans"]) == len(marks) - 2  # title and rule
    assert [row["#"] for row in rows] == [str(p["rank"]) for p in found["plans"]]
    assert "Plan 1 is optimal" in shown["table"].out
    assert all("error" not in shown[form].err for form in ("json", "yaml", "csv", "md"))
    assert "\x1b" not in "".join(ran.out + ran.err for ran in shown.values())


def test_json_has_the_contracts_keys_and_no_infinities(command: Command) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(command(*SEARCH, "-o", "json").out, parse_constant=refuse)
    assert set(found) >= {"format_version", "job", "plans", "search", "provenance"}
    assert set(found["search"]) >= {"candidates", "elapsed_s", "rejected"}
    assert set(found["provenance"]) >= {"planner_version", "catalog_sha256", "model_sha256", "seed", "argv"}
    plan, pool = found["plans"][0], found["plans"][0]["pools"][0]
    assert set(plan) >= {"rank", "mode", "gpus", "gpus_total", "cost_usd_per_hour", "usd_per_million_output_tokens",
                         "predicted", "simulated", "pools", "certificate", "basis", "band"}  # fmt: skip
    assert (plan["basis"], plan["calibrated_by"]) == ("calibrated", {"h100-sxm": "family"})
    assert set(plan["predicted"]) >= {
        "output_tok_s",
        "output_tok_s_per_gpu",
        "request_rate",
        "ttft_ms",
        "tpot_ms",
        "e2e_ms",
    }
    assert all(set(plan["predicted"][m]) >= {"mean", "p50", "p95", "p99"} for m in ("ttft_ms", "tpot_ms", "e2e_ms"))
    assert set(pool) >= {"role", "gpu", "replicas", "layout", "weights", "kv", "max_batch", "memory"}
    assert set(pool["layout"]) == {"tp", "attention_dp", "pp", "ep", "cp"}
    assert set(pool["memory"]) == {"weights_gib", "kv_gib", "activations_gib", "capacity_gib"}
    assert set(plan["certificate"]) >= {"objective", "value", "bound", "gap", "status", "solver"}


def test_a_plan_is_consistent_with_itself(command: Command) -> None:
    found = json.loads(command(*changed(fleet="h100-sxm:7", tpot="30ms", output="json")).out)
    for plan in found["plans"]:
        pool, seen = plan["pools"][0], plan["predicted"]
        layout = pool["layout"]
        gpus = pool["replicas"] * layout["tp"] * layout["attention_dp"] * layout["pp"] * layout["cp"]
        assert plan["gpus"] == {"h100-sxm": gpus} and plan["gpus_total"] == gpus
        assert plan["gpus_idle"] == 7 - gpus
        assert seen["output_tok_s"] == pytest.approx(200 * seen["request_rate"], rel=1e-4)
        assert seen["output_tok_s_per_gpu"] == pytest.approx(seen["output_tok_s"] / gpus, rel=1e-4)
        per_million = plan["cost_usd_per_hour"] / 3600 / seen["output_tok_s"] * 1e6
        assert plan["usd_per_million_output_tokens"] == pytest.approx(per_million, rel=1e-4)
        assert seen["tpot_ms"]["p95"] <= 30
        memory = pool["memory"]
        assert memory["weights_gib"] + memory["kv_gib"] + memory["activations_gib"] <= memory["capacity_gib"]
        low, high = plan["band"]["output_tok_s"]
        assert low < seen["output_tok_s"] < high


def test_files_are_written_in_the_format_of_their_suffix(command: Command, tmp_path: Path) -> None:
    targets = [tmp_path / f"plan.{suffix}" for suffix in ("json", "yaml", "yml", "csv", "md", "txt", "JSON")]
    words = [word for target in targets for word in ("--out", str(target))]
    assert command(*SEARCH, *words).code == 0
    by = {target.name: target.read_text() for target in targets}
    assert json.loads(by["plan.json"])["plans"] == yaml.safe_load(by["plan.yaml"])["plans"]
    assert json.loads(by["plan.JSON"])["plans"] == yaml.safe_load(by["plan.yml"])["plans"]
    assert list(csv.DictReader(io.StringIO(by["plan.csv"])))
    assert by["plan.md"].startswith("| #")
    assert "Plan 1" in by["plan.txt"]
    assert sorted(tmp_path.iterdir()) == sorted(targets)  # no temporary file is left


def test_a_saved_plan_is_explained_and_a_second_search_overwrites_it(command: Command, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert command(*changed(fleet="h100-sxm:4", tpot="20ms", out=str(plan))).code == 0
    ran = command("explain", str(plan))
    assert ran.code == 0
    for part in ("Plan 1", "attention decode", "Memory of the fullest GPU", "TPOT p95", "What relaxing one limit buys"):
        assert part in ran.out
    found = json.loads(command("explain", str(plan), "--plan", "2", "-o", "json").out)
    assert found["plan"]["#"] == 2
    assert sum(found["decode_iteration_ms"].values()) > 0
    refused(command("explain", str(plan), "--plan", "99"), "--plan 99", "1 to 5")
    assert command(*changed(fleet="h100-sxm:1", out=str(plan))).code == 0
    assert json.loads(plan.read_text())["job"]["fleet"]["gpus"] == {"h100-sxm": 1}


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[]", "3", '{"plans": []}', '{"format_version": 1}', '{"format_version": "99.0", "plans": []}',
     '{"format_version": "1.0"}', '{"format_version": "1.0", "job": {}, "plans": [{}], "search": {}, "provenance": {}}',
     "[" * 100_000],
)  # fmt: skip
def test_explaining_what_is_no_plan_is_refused(command: Command, tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    refused(command("explain", str(path)), "plan.json")


def test_explaining_a_plan_whose_job_was_edited_to_nonsense_is_refused(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert command(*SEARCH, "--out", path).code == 0
    good = json.loads(path.read_text())
    for key, value in (("workload", {"isl": -1, "osl": 1}), ("model", "no-such-model"), ("slo", 7)):
        path.write_text(json.dumps({**good, "job": {**good["job"], key: value}}))
        refused(command("explain", str(path)))
    pool = {**good["plans"][0]["pools"][0], "weights": "fp99"}
    path.write_text(json.dumps({**good, "plans": [{**good["plans"][0], "pools": [pool]}]}))
    refused(command("explain", str(path)))
    refused(command("explain", str(tmp_path / "absent.json")), "absent.json")


def test_one_configuration_is_estimated_with_its_operators(command: Command) -> None:
    words = ("estimate", "llama-3.1-8b", "--gpu", "h100", "--isl", "1k", "--osl", "200", "--concurrency", "16")
    found = json.loads(command(*words, "-o", "json").out)
    assert found["status"] == "ok" and found["gpu"] == "h100-sxm"
    assert found["ttft_ms"] + 199 * found["tpot_ms"] == pytest.approx(found["e2e_latency_ms"], rel=1e-3)
    assert "all-reduce" not in found["decode_iteration_ms"]
    assert "total" in command(*words).out
    refused(command(*words, "--tp", "3"), "heads divisible by 3")
    refused(command(*words, "--weights", "fp99"), "fp99")
    refused(command(*words, "--kv", "fp99"), "fp99")
    refused(command("estimate", "llama-3.1-8b", "--isl", "1k"), "--gpu is missing")
    refused(command("estimate", "llama-3.1-405b", *words[2:]), "does not fit", code=1)


def test_a_file_of_points_is_answered_row_by_row(command: Command, tmp_path: Path) -> None:
    points, out = tmp_path / "points.csv", tmp_path / "predictions.csv"
    header = "id,model,gpu,mode,isl,osl,concurrency,tp"
    points.write_text(
        f"{header}\nb,llama-3.1-8b,h100-sxm,aggregated,1000,200,8,1\na,llama-3.1-8b,h100-sxm,static,x,1,1,1\n"
    )
    ran = command("estimate", "--from", points, "--out", out)
    assert (ran.code, ran.out) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert list(rows[0]) == ["id", "status", "reason", "ttft_ms", "tpot_ms", "output_tok_s_per_gpu", "e2e_latency_ms",
                             "memory_gib_per_gpu"]  # fmt: skip
    assert [(r["id"], r["status"]) for r in rows] == [("b", "ok"), ("a", "unsupported")]
    assert command("estimate", "--from", points).out == out.read_text()
    refused(command("estimate", "--from", tmp_path / "absent.csv"), "absent.csv")
    refused(command("estimate", "--from", points, "--out", tmp_path / "no" / "x.csv"), "--out")


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (("gpus",), 45),
        (("models",), 70),
        (("nodes",), 20),
        (("prices",), 100),
        (("prices", "h100-sxm"), 3),
        (("engines",), 3),
    ],
)
def test_catalogs_are_listed(command: Command, words: tuple[str, ...], least: int) -> None:
    rows = json.loads(command("catalog", *words, "-o", "json").out)
    assert len(rows) >= least
    table = command("catalog", *words)
    assert table.code == 0 and len(table.out.splitlines()) > least


def test_catalog_entries_are_shown_by_any_of_their_names(command: Command) -> None:
    shown = json.loads(command("catalog", "gpus", "show", "NVIDIA H100 80GB HBM3", "-o", "json").out)
    assert shown["id"] == "h100-sxm" and shown["sources"]
    model = json.loads(command("catalog", "models", "show", "llama-3.1-8b", "-o", "json").out)
    assert set(model) >= {"name", "architecture", "layers", "total_parameters", "active_parameters",
                          "kv_bytes_per_token_bf16", "weights_gib"}  # fmt: skip
    assert model["kv_bytes_per_token_bf16"] == 2 * 2 * 8 * 128 * 32  # K and V, 2 bytes, 8 heads of 128, 32 layers
    refused(command("catalog", "gpus", "show", "h1000"), "unknown", "h100")
    refused(command("catalog", "models", "show", "llama-9"), "unknown model")
    refused(command("catalog", "prices", "h1000"), "unknown")
    refused(command("catalog", "gpus", "-o", "xml"), "unknown output format")


def test_a_users_folder_adds_a_gpu_and_a_model(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        "[accelerators.my-gpu]\nmemory_gib = 60\nmemory_bandwidth_gbs = 2000\nbf16_tflops = 500\n"
    )
    (tmp_path / "models").mkdir()
    facts = (ROOT / "models_catalog" / "meta-llama--llama-3.1-8b.toml").read_text()
    own = re.sub(r"^id = .*$", 'id = "me/mine"', re.sub(r"^aliases = .*$", "", facts, flags=re.M), flags=re.M)
    (tmp_path / "models" / "me--mine.toml").write_text(own)
    for model in ("llama-3.1-8b", "me/mine"):
        ran = command(*changed(model=model, fleet="my-gpu:2", catalog=str(tmp_path), output="json"))
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)["plans"][0]
        assert (found["gpus"], found["basis"]) == ({"my-gpu": 2}, "modelled")
    (tmp_path / "broken.toml").write_text("[accelerators.x\n")
    refused(command(*changed(catalog=str(tmp_path))), "broken.toml")


def test_interrupting_is_no_bug_and_a_bug_says_so(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import planner.api

    def fail(error: BaseException) -> Callable[..., None]:
        def run(*_: object, **__: object) -> None:
            raise error

        return run

    monkeypatch.setattr(planner.api, "search", fail(KeyboardInterrupt()))
    stopped = command(*SEARCH)
    assert (stopped.code, stopped.out) == (130, "") and "Traceback" not in stopped.err
    monkeypatch.setattr(planner.api, "search", fail(ZeroDivisionError("oops")))
    refused(command(*SEARCH), "a bug in planner", "--debug", code=70)


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "planner", *words], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment}, cwd=ROOT.parent,
    )  # fmt: skip


def test_the_same_question_saves_the_same_bytes_but_for_created_in_every_process(tmp_path: Path) -> None:
    words = (
        "search", "--simulate-top", "1", "qwen/qwen3-30b-a3b", "--fleet", "h100-sxm:4,l40s:4", "--isl", "1000",
        "--osl", "200", "-o", "json", "--out",
    )  # fmt: skip
    paths = tmp_path / "first.json", tmp_path / "second.json"
    ran = [process(*words, str(p), PYTHONHASHSEED=seed) for p, seed in zip(paths, "12", strict=True)]
    assert ran[0].returncode == 0, ran[0].stderr
    first, second = (
        [line for line in path.read_text().splitlines() if '"created": ' not in line] for path in paths
    )  # fmt: skip
    assert first == second
    printed, saved = json.loads(ran[0].stdout), json.loads(paths[0].read_text())
    assert printed["search"]["elapsed_s"] > 0 and saved["search"]["elapsed_s"] is None
    del printed["search"]["elapsed_s"], saved["search"]["elapsed_s"]
    assert printed == saved
    other = process(*(w.replace("h100-sxm:4,l40s:4", "l40s:4,h100-sxm:4") for w in words[:-1]))
    assert json.loads(other.stdout)["plans"] == saved["plans"]


def test_a_real_process_keeps_data_and_messages_apart(tmp_path: Path) -> None:
    good = process(*SEARCH, NO_COLOR="1")
    assert good.returncode == 0 and "operating points" in good.stderr and "\x1b" not in good.stdout + good.stderr
    bad = process(*changed(model="no-such-model"), FORCE_COLOR="1")
    assert (bad.returncode, bad.stdout) == (2, "") and bad.stderr.startswith("error: unknown model")
    none = process(*changed(tpot="10us"))
    assert (none.returncode, none.stdout) == (1, "") and "nearest miss" in none.stderr
    traced = process(*changed(model="no-such-model"), "--debug")
    assert traced.returncode == 2 and "Traceback" in traced.stderr


def test_ctrl_c_ends_a_command_in_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(by: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.accuracy.validate.validate", pressed)
    refused(command("validate"), "error: interrupted", code=130)


@pytest.mark.parametrize("words", [("catalog", "gpus"), ("catalog", "prices", "-o", "json"), ("--help",), ("serch",)])
def test_a_reader_that_has_gone_is_no_error_and_no_missing_plan(words: tuple[str, ...]) -> None:
    """Exit code of SIGPIPE, in silence, whether the answer fills the pipe or waits in the buffer."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "planner", *words], stdout=writer, stderr=writer, timeout=60, cwd=ROOT)
    os.close(writer)
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "planner", "catalog", "gpus"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "cannot be written: No space" in done.stderr


@pytest.mark.parametrize(("words", "code"), [(SEARCH, 0), (changed(model="no-such"), 2), (changed(tpot="10us"), 1)])
def test_no_command_waits_for_a_solver_that_was_left_behind(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int
) -> None:
    from planner.search.mixture import backends

    ended: list[int] = []

    def end(status: int) -> None:
        ended.append(status)
        raise SystemExit(status)

    monkeypatch.setattr(backends, "_LEFT_BEHIND", [threading.current_thread()])
    monkeypatch.setattr(os, "_exit", end)
    assert command(*words).code == code and ended == [code]


def test_the_version_is_that_of_the_distribution() -> None:
    shown = process("--version")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("version", __version__)
    assert shown.stdout == f"planner {__version__}\n" and declared == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_help_names_every_command(command: Command) -> None:
    shown = command("--help")
    assert shown.code == 0
    for name in ("search", "estimate", "explain", "catalog"):
        assert name in shown.out
    assert command("search", "-h").code == 0
    refused(command("serch"), "No such command", "search")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search", "m", "--fleet", "f:1", "--top", "abc"), "--top is 'abc'; it must be a whole number"),
        (("search", "m", "--fleet", "f:1", "--top", "0"), "--top is '0'; it must be at least 1"),
        (("search", "m", "--fleet", "f:1", "--kv-compression", "x"), "--kv-compression is 'x'; it must be a number"),
        (("search", "m"), "--fleet is missing"),
        (("search",), "MODEL is missing"),
        (("diff", "a.json"), "NEW is missing"),
        (("search", "m", "--flet", "f:1"), "No such option: --flet"),
        (("catalog", "gpu"), "No such command 'gpu'. Did you mean 'gpus'?"),
    ],
)
def test_words_that_no_command_takes_are_refused_with_the_help_to_read(
    command: Command, words: tuple[str, ...], said: str
) -> None:
    refused(command(*words), f"error: {said}", f"hint: planner {words[0]} --help")


@pytest.mark.parametrize(
    ("what", "name", "said"),
    [("nodes", "a3-highgpu-8g", "tcpx"), ("engines", "vllm", "chunk_tokens"), ("prices", "t4", "g4dn.xlarge"),
     ("gpus", "t4", "datasheet"), ("models", "llama-3.1-8b", "config.json")],
)  # fmt: skip
def test_every_listing_shows_one_entry_with_its_source(command: Command, what: str, name: str, said: str) -> None:
    shown = command("catalog", what, "show", name, "-o", "json")
    assert shown.code == 0 and said in shown.out
    refused(command("catalog", what, "show", name + "-x"), "unknown")
    bare = command("catalog", what, "show")
    refused(bare, f"catalog {what}: cannot read 'show' without a name")
    refused(command("catalog", what, "list", name), f"cannot read list {name}")
    assert command(*bare.err.rpartition("hint: planner ")[2].split()).code == 0

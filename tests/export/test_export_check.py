from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_cases import CASES, PD, plan_file, pool
from hypothesis import given
from hypothesis import strategies as st

from planner.api import Catalogs
from planner.errors import ExportError
from planner.export.check import document_problems, file_problems
from planner.export.export import export
from planner.export.flags import flag_table, problems

SCHEMAS = {
    "DynamoGraphDeployment": "dynamographdeployment_v1beta1.reduced",
    "LeaderWorkerSet": "leaderworkerset_v1",
    "LLMInferenceService": "llminferenceservice_v1alpha2",
    None: "llm-d-modelservice_values",
}


def made(target: str, case: str = "") -> list[dict[str, Any]]:
    found = CASES[case] if case else plan_file(*PD)
    files = export(found, 1, target, Catalogs())[0]
    return [d for name, text in files.items() if name.endswith(".yaml") for d in yaml.safe_load_all(text)]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_flag_we_pin_exists_in_the_engine_with_a_fitting_type(engine: str, shared: Path) -> None:
    full = json.loads((shared / "exports" / f"engine_flags_{engine}.json").read_text())
    table = flag_table(engine)
    assert full["version"] == table.version
    known = {name: entry for entry in full["flags"] for name in entry["flags"]}
    for name in table.own:
        abbreviated = [full_name for full_name in known if full_name.startswith(f"{name}-")]
        if name not in known and len(abbreviated) == 1:  # argparse takes what is short for one flag alone
            known[name] = known[abbreviated[0]]
        ours, theirs = table.types[name], known[name]["type"]
        if ours in ("int", "float"):
            assert ours in theirs, name
        elif ours == "switch":
            assert theirs == "bool", name
        elif ours == "json":
            assert "Config" in theirs, name
        else:
            assert not any(word in theirs.split(" / ")[0].lower() for word in ("bool", "int", "float")), name
        if isinstance(ours, tuple) and "choices" in known[name]:
            assert set(ours) <= set(ast.literal_eval(known[name]["choices"])), name


@pytest.mark.parametrize("target", ["dynamo", "lws", "kserve", "llm-d"])
@pytest.mark.parametrize("case", ["", *CASES])
def test_manifests_pass_the_full_schemas_of_the_platforms(case: str, target: str, shared: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    try:
        documents = made(target, case)
    except ExportError as refused:  # what a target cannot express is tested elsewhere
        pytest.skip(str(refused))
    for document in documents:
        if document.get("kind") in SCHEMAS:
            path = shared / "exports" / "schemas" / f"{SCHEMAS[document.get('kind')]}.schema.json"
            full = jsonschema.Draft202012Validator(json.loads(path.read_text()))
            assert [error.message for error in full.iter_errors(document)] == []


WIDTHS = st.sampled_from([1, 2, 4, 8])


@given(
    target=st.sampled_from(["dynamo", "lws", "kserve", "llm-d"]), engine=st.sampled_from(["vllm", "sglang", "trtllm"]),
    split=st.booleans(), tp=WIDTHS, attention_dp=WIDTHS, pp=WIDTHS, experts=st.booleans(),
    gpu=st.sampled_from(["h100-sxm", "gb200", "l4", "mi300x"]), second=st.sampled_from(["h200-sxm", "l40s"]),
    model=st.sampled_from(["llama-3.1-70b", "deepseek-ai/DeepSeek-V3", "qwen/qwen3-next-80b-a3b", "a'b\n{{ c }}"]),
    replicas=st.integers(1, 100),
)  # fmt: skip
def test_plans_of_every_mode_size_and_model_pass_the_full_schemas(
    shared: Path, target: str, engine: str, split: bool, tp: int, attention_dp: int, pp: int, experts: bool, gpu: str,
    second: str, model: str, replicas: int,
) -> None:  # fmt: skip
    jsonschema = pytest.importorskip("jsonschema")
    shape = {"tp": tp, "attention_dp": attention_dp, "pp": pp, "ep": tp * attention_dp if experts else 1}
    pools = [pool(role, gpu, engine=engine, replicas=replicas, **shape) for role in (["prefill"] if split else [])]
    pools.append(pool("decode" if split else "aggregated", second, engine=engine, tp=tp))
    try:
        files = export(plan_file(*pools, model=model), 1, target, Catalogs(), check=True)[0]
    except ExportError as refused:
        assert "fails its schema" not in str(refused)
        return
    for document in (d for n, text in files.items() if n.endswith(".yaml") for d in yaml.safe_load_all(text)):
        if document.get("kind") in SCHEMAS:
            path = shared / "exports" / "schemas" / f"{SCHEMAS[document.get('kind')]}.schema.json"
            full = jsonschema.Draft202012Validator(json.loads(path.read_text()))
            assert [error.message for error in full.iter_errors(document)] == []


def test_upstream_samples_pass_our_schemas_and_flag_tables(shared: Path) -> None:
    samples = sorted((shared / "exports" / "samples").rglob("*.yaml"))
    assert len(samples) > 10
    assert {str(path): list(file_problems(path.read_text())) for path in samples} == {str(p): [] for p in samples}


@pytest.mark.parametrize(
    ("sample", "right", "wrong"),
    [
        ("dynamo/vllm/disagg.yaml", "--disaggregation-mode", "--disaggregation-role"),
        ("dynamo/sglang/disagg.yaml", '- "1"', '- "one"'),
        ("dynamo/trtllm/agg.yaml", "--extra-engine-args", "--extra-engine-arg"),
        ("dynamo/trtllm/agg.yaml", "type: worker", "type: workers"),
        ("kserve/llm-inference-service-pd-qwen2-7b-gpu.yaml", "--kv_transfer_config", "--kv_transfer_conf"),
        ("kserve/inference_pd_disaggregation.yaml", "replicas: 2", "replicas: two"),
        ("llm-d/values-pd.yaml", "--enforce-eager", "--enforce-lazy"),
        ("llm-d/values-pd.yaml", "servicePort: 8000", "servicePort: 80000"),
        ("lws/leaderworkerset_v1_leaderworkerset.yaml", "replicas:", "replica:"),
    ],
)
def test_a_mistake_in_an_upstream_sample_fails(sample: str, right: str, wrong: str, shared: Path) -> None:
    text = (shared / "exports" / "samples" / sample).read_text()
    assert right in text
    assert list(file_problems(text.replace(right, wrong)))


def graph(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["components"][1]


MISTAKES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "a key nobody knows": ("dynamo", lambda d: d["spec"].update(services={})),
    "an old version": ("dynamo", lambda d: d.update(apiVersion="nvidia.com/v1alpha1")),
    "two components of one name": ("dynamo", lambda d: graph(d).update(name=d["spec"]["components"][2]["name"])),
    "no container called main": (
        "dynamo", lambda d: graph(d)["podTemplate"]["spec"]["containers"][0].update(name="engine"),
    ),
    "one node as several": ("dynamo", lambda d: graph(d).update(multinode={"nodeCount": 1})),
    "a count as text": ("dynamo", lambda d: graph(d).update(replicas="3")),
    "a flag of another release": (
        "dynamo", lambda d: graph(d)["podTemplate"]["spec"]["containers"][0]["args"].append("--is-prefill-worker"),
    ),
    "a name that is no label": ("lws", lambda d: d["metadata"].update(name="Llama_3")),
    "no pod": ("lws", lambda d: d["spec"]["leaderWorkerTemplate"].pop("workerTemplate")),
    "a number among words": (
        "lws", lambda d: d["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["args"].append(8),
    ),
    "GPUs as text": (
        "lws",
        lambda d: d["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"][0]["resources"]["limits"]
        .update({"nvidia.com/gpu": "two"}),
    ),
    "no model": ("kserve", lambda d: d["spec"].pop("model")),
    "data without dataLocal": ("kserve", lambda d: d["spec"]["parallelism"].update(data=2)),
    "stages and data": ("kserve", lambda d: d["spec"]["parallelism"].update(data=2, dataLocal=2, pipeline=2)),
    "an unbalanced quote": (
        "kserve", lambda d: d["spec"]["template"]["containers"][0]["env"][-1].update(value="--max-model-len '4"),
    ),
    "no decode": ("llm-d", lambda d: d.pop("decode")),
    "stages, which the chart has no key for": ("llm-d", lambda d: d["decode"]["parallelism"].update(pipeline=2)),
    "an engine configuration with a typo": ("trtllm", lambda d: d.update(max_batchsize=3)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_seeded_mistake_fails(mistake: str) -> None:
    target, spoil = MISTAKES[mistake]
    document = made(target, "one node" if target == "trtllm" else "")[0]
    assert list(document_problems(document)) == []
    broken = copy.deepcopy(document)
    spoil(broken)
    assert list(document_problems(broken))


def test_what_is_no_manifest_is_told() -> None:
    assert list(file_problems("a: [")) and list(file_problems("")) and list(file_problems("kind: Pod\n"))
    assert list(file_problems("- 1\n"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "positional"),
        (["m", "--tensor-parallel-size", "two"], "takes int"),
        (["m", "--tensor-parallel-size"], "no value"),
        (["m", "--tensor-parallel"], "no flag"),
        (["m", "--gpu-memory-utilization", "nan"], "takes float"),
        (["m", "--kv-transfer-config", "[1]"], "takes json"),
        (["m", "--kv-cache-dtype", "fp7"], "one of auto, fp8"),
        (["m", "--max-num-seqs", "1", "--max-num-seqs", "2"], "twice"),
    ],
)
def test_a_command_line_that_would_not_start_says_what_is_wrong(words: list[str], said: str) -> None:
    assert said in " ".join(problems("vllm", words))

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from export_cases import CASES, HOSTILE, PD, plan_file, pool
from hypothesis import given
from hypothesis import strategies as st

from planner.api import Catalogs
from planner.catalog.files import catalog_root
from planner.errors import ExportError, InputError
from planner.export.export import TARGETS, export
from planner.export.flags import flag_table
from planner.job.tuning import Tuning
from planner.plan import PlanFile


def files_of(found: PlanFile, target: str, **options: Any) -> Mapping[str, str]:
    return export(found, 1, target, Catalogs(), check=True, **options)[0]


def documents(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [d for name, text in files.items() if name.endswith(".yaml") for d in yaml.safe_load_all(text)]


def containers(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [c for key, value in node.items() for c in (value if key == "containers" else containers(value))]
    return [c for item in node for c in containers(item)] if isinstance(node, list) else []


def value_of(words: list[str], flag: str) -> str | None:
    return words[words.index(flag) + 1] if flag in words else None


# What a target cannot say, each for a reason of its own.
REFUSED = {
    ("attention dp in a node", "trtllm"),  # attention data parallel inside tp
    ("local folder", "llm-d"), ("local folder", "kserve"),  # no URI
    ("two nodes, stages", "kserve"), ("rack", "kserve"),  # no template
    ("unlabelled GPU", "dynamo"), ("unlabelled GPU", "lws"), ("unlabelled GPU", "kserve"),  # no image
    ("unlabelled GPU", "llm-d"), ("unlabelled GPU", "trtllm"), ("two GPU types", "dynamo"), ("two GPU types", "trtllm"),
}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_plan_passes_its_own_check_or_says_why_not(case: str, target: str) -> None:
    try:
        files = files_of(CASES[case], target)
    except ExportError as refused:
        assert refused.exit_code == 3 and (case, target) in REFUSED, refused
        return
    assert (case, target) not in REFUSED
    assert "README.md" in files and len(files) > 1
    assert all(name == Path(name).name for name in files)


@pytest.mark.parametrize("target", TARGETS)
def test_attention_apart_from_ffn_is_refused_with_the_reason(target: str) -> None:
    split = plan_file(pool("attention", tp=4), pool("ffn", ep=4))
    with pytest.raises(ExportError, match="attention and ffn apart"):
        files_of(split, target)


def test_the_split_of_each_engine_uses_all_gpus_of_a_replica() -> None:
    wide = plan_file(pool(tp=2, attention_dp=4, ep=8), model="deepseek-ai/DeepSeek-V3")
    vllm = containers(documents(files_of(wide, "lws")))[0]["args"]
    assert value_of(vllm, "--tensor-parallel-size") == "2" and value_of(vllm, "--data-parallel-size") == "4"
    assert "--enable-expert-parallel" in vllm
    other = plan_file(pool(tp=2, attention_dp=4, ep=8, engine="sglang"), model="deepseek-ai/DeepSeek-V3")
    sglang = containers(documents(files_of(other, "lws")))[0]["args"]
    assert value_of(sglang, "--tp-size") == "8" and value_of(sglang, "--attn-dp-size") == "4"
    assert value_of(sglang, "--ep-size") == "8"
    assert value_of(sglang, "--max-running-requests") == "256"  # 64 for each of four attention groups
    all_dp = plan_file(pool(attention_dp=8, ep=4), model="deepseek-ai/DeepSeek-V3")
    config = documents(files_of(all_dp, "trtllm"))[0]
    assert config["tensor_parallel_size"] == 8 and config["enable_attention_dp"] is True
    assert config["moe_expert_parallel_size"] * config["moe_tensor_parallel_size"] == 8


def test_overlap_brings_the_exchange_library_without_which_an_engine_refuses_it() -> None:
    def script(gpu: str, target: str, **split: int) -> str:
        halves = Tuning(two_batch_overlap=True)
        found = plan_file(pool(gpu=gpu, engine="sglang", tuning=halves, **split), model="deepseek-ai/DeepSeek-V3")
        return " ".join(" ".join(files_of(found, target).values()).split())

    wide = {"attention_dp": 8, "ep": 8}
    assert "--moe-a2a-backend mori --enable-two-batch-overlap" in script("mi300x", "sglang", **wide)
    assert "--moe-a2a-backend deepep --enable-two-batch-overlap" in script("h200-sxm", "sglang", **wide)
    assert "--enable-dbo --all2all-backend deepep_low_latency" in script("h200-sxm", "vllm", **wide)
    assert "overlap" not in script("h200-sxm", "sglang", tp=8, ep=8)
    with pytest.raises(ExportError, match="two-batch"):
        script("mi300x", "vllm", **wide)


def test_sglang_is_told_to_send_tokens_to_experts_where_the_plan_counts_on_it() -> None:
    def script(model: str = "deepseek-ai/DeepSeek-V3", gpu: str = "h200-sxm", **split: int) -> str:
        found = plan_file(pool(gpu=gpu, engine="sglang", **split), model=model)
        return " ".join(" ".join(files_of(found, "sglang").values()).split())

    wide = {"attention_dp": 8, "ep": 8}
    assert "--moe-a2a-backend deepep" in script(**wide) and "two-batch" not in script(**wide)
    assert "--moe-a2a-backend mori" in script(gpu="mi300x", **wide)
    for gathered in (script(tp=8, ep=8), script(attention_dp=8), script(gpu="l40s", **wide)):
        assert "--moe-a2a-backend" not in gathered
    assert "--moe-a2a-backend" not in script(model="meta-llama/Llama-3.1-70B", attention_dp=8)


def test_sglang_looks_at_its_queue_as_often_as_the_plan_counts_on() -> None:
    plans = [plan_file(pool(gpu=gpu, engine="sglang")) for gpu in ("h100-sxm", "mi300x")]
    scripts = [" ".join(files_of(plan, "sglang").values()) for plan in plans]
    assert ["--scheduler-recv-interval 10" in script for script in scripts] == [True, False]
    assert "--scheduler-recv-interval" not in scripts[1]


@pytest.mark.parametrize("target", ["vllm", "sglang", "lws", "dynamo", "llm-d", "kserve"])
def test_experts_over_some_ranks_only_are_refused_where_no_flag_says_so(target: str) -> None:
    partly = plan_file(pool(tp=8, ep=4, engine="sglang" if target == "sglang" else "vllm"))
    with pytest.raises(ExportError, match="ep 4"):
        files_of(partly, target)


@pytest.mark.parametrize("target", ["vllm", "dynamo", "lws", "llm-d", "kserve"])
def test_stages_behind_a_cache_transfer_are_refused_where_the_engine_has_none(target: str) -> None:
    split = (pool("prefill", tp=4, pp=2), pool("decode", tp=8))
    with pytest.raises(ExportError, match="pipeline stages"):
        files_of(plan_file(*split), target)
    if target in ("dynamo", "lws"):  # SGLang moves it
        assert files_of(plan_file(*({**p, "engine": "sglang"} for p in split)), target)


def test_a_replica_over_nodes_has_one_pod_per_node_and_ranks_that_add_up() -> None:
    wide = files_of(CASES["experts over two nodes"], "lws")
    group = next(d for d in documents(wide) if d["kind"] == "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    container = containers(group)[0]
    assert group["size"] == 2 and container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert value_of(container["args"], "--data-parallel-size") == "16"
    text = container["command"][2]
    assert "--data-parallel-size-local 8" in text and "LWS_WORKER_INDEX * 8" in text and "--headless" in text
    graph = documents(files_of(CASES["experts over two nodes"], "dynamo"))[0]["spec"]["components"][1]
    assert graph["multinode"] == {"nodeCount": 2}


def test_prefill_and_decode_move_the_cache_and_land_on_their_gpus() -> None:
    graph = documents(files_of(plan_file(*PD), "dynamo"))[0]["spec"]["components"]
    roles = {component["type"]: component for component in graph}
    assert set(roles) == {"frontend", "prefill", "decode"} and roles["decode"]["replicas"] == 3
    pods = {role: roles[role]["podTemplate"]["spec"] for role in ("prefill", "decode")}
    assert pods["prefill"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    assert pods["decode"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    chunks = {}
    for role, part in (("prefill", "kv_producer"), ("decode", "kv_consumer")):
        args = pods[role]["containers"][0]["args"]
        transfer = json.loads(value_of(args, "--kv-transfer-config") or "")
        assert transfer == {"kv_connector": "NixlConnector", "kv_role": part}
        assert value_of(args, "--disaggregation-mode") == role
        chunks[role] = int(value_of(args, "--max-num-batched-tokens") or 0)
    assert chunks["prefill"] == 2 * chunks["decode"]  # no decode waits for the iterations of a prefill worker
    values = documents(files_of(plan_file(*PD), "llm-d"))[0]
    assert values["prefill"]["create"] and values["routing"]["proxy"]["enabled"]
    service = documents(files_of(plan_file(*PD), "kserve"))[0]["spec"]
    assert service["prefill"]["parallelism"]["tensor"] == 4 and service["parallelism"]["tensor"] == 8


def test_a_gpu_of_another_vendor_asks_for_its_own_resource() -> None:
    lws = [d for d in documents(files_of(CASES["two GPU types"], "lws")) if d["kind"] == "LeaderWorkerSet"]
    assert [next(iter(containers(d)[0]["resources"]["limits"])) for d in lws] == ["nvidia.com/gpu", "amd.com/gpu"]
    values = [files_of(CASES["two GPU types"], "llm-d")[f"values{suffix}.yaml"] for suffix in ("", "-2")]
    assert [yaml.safe_load(text)["decode"]["accelerator"]["type"] for text in values] == ["nvidia", "amd"]


def test_node_labels_are_data_that_a_folder_of_the_user_replaces(tmp_path: Path) -> None:
    (tmp_path / "kubernetes").mkdir()
    text = '[labels]\nh100-sxm = { "cloud.google.com/gke-accelerator" = "nvidia-h100-80gb" }\n'
    (tmp_path / "kubernetes" / "node_selectors.toml").write_text(text)
    files, _ = export(CASES["one GPU"], 1, "lws", Catalogs((tmp_path,)), check=True)
    spec = documents(files)[0]["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    (tmp_path / "kubernetes" / "node_selectors.toml").write_text("[label]\n")
    with pytest.raises(InputError, match="unknown key"):
        export(CASES["one GPU"], 1, "lws", Catalogs((tmp_path,)))


def test_every_label_and_resource_that_ships_says_where_it_was_seen() -> None:
    table = tomllib.loads((catalog_root("hardware_catalog") / "kubernetes" / "node_selectors.toml").read_text())
    assert set(table["sources"]) == {*table["labels"], *table["resources"].values()}
    assert set(table["labels"]) <= set(Catalogs().hardware.accelerators)


def test_images_follow_the_vendor_and_a_folder_of_the_user_names_others(tmp_path: Path) -> None:
    amd = plan_file(pool(gpu="mi300x", tp=8))
    assert containers(documents(files_of(amd, "lws")))[0]["image"].startswith("vllm/vllm-openai-rocm:")
    with pytest.raises(ExportError, match="no image of dynamo-vllm for GPUs of AMD"):
        files_of(amd, "dynamo")
    assert files_of(amd, "vllm")  # scripts need no image
    (tmp_path / "kubernetes").mkdir()
    text = '[images.dynamo-vllm]\nAMD = "mine/dynamo:1"\n[images.vllm]\nNVIDIA = "mine/cuda:1"\n'
    (tmp_path / "kubernetes" / "node_selectors.toml").write_text(text)
    graph, _ = export(amd, 1, "dynamo", Catalogs((tmp_path,)), check=True)
    assert {c["image"] for c in containers(documents(graph))} == {"mine/dynamo:1"}
    manifests, _ = export(CASES["one GPU"], 1, "kserve", Catalogs((tmp_path,)), check=True)
    assert containers(documents(manifests))[0]["image"] == "mine/cuda:1"


def test_a_model_on_a_claim_is_loaded_where_the_chart_mounts_it_and_refused_where_nothing_fetches_it() -> None:
    found = plan_file(pool(tp=2))
    values = documents(files_of(found, "llm-d", model="pvc://weights/llama/70b"))[0]
    assert values["modelArtifacts"]["uri"] == "pvc://weights/llama/70b"
    args = values["decode"]["containers"][0]["args"]
    assert args[0] == "/model-cache/llama/70b" and value_of(args, "--served-model-name") == found.job["model"]
    service = documents(files_of(found, "kserve", model="pvc://weights/llama/70b"))[0]
    assert service["spec"]["model"]["uri"] == "pvc://weights/llama/70b"
    for target in ("vllm", "sglang", "trtllm", "dynamo", "lws"):
        with pytest.raises(InputError, match="hub ids and paths"):
            files_of(found, target, model="pvc://weights/llama/70b")


def test_the_chart_sets_no_variable_twice_and_its_pods_over_nodes_find_their_gpu() -> None:
    values = documents(files_of(CASES["experts over two nodes"], "llm-d"))[0]
    assert "authSecretName" not in values["modelArtifacts"]  # the chart would add HF_TOKEN a second time
    assert values["multinode"] and values["decode"]["acceleratorTypes"] == {
        "labelKey": "nvidia.com/gpu.product", "labelValues": ["NVIDIA-H100-80GB-HBM3"],
    }  # fmt: skip
    strange = plan_file(pool(gpu="ascend-910b"))
    with pytest.raises(ExportError, match="no accelerator with resource huawei"):
        files_of(strange, "llm-d")


@pytest.mark.parametrize(("engine", "split"), [("vllm", True), ("sglang", True), ("sglang", False)])
def test_routers_are_given_options_that_they_have_and_all_replicas(engine: str, split: bool, tmp_path: Path) -> None:
    pools = [pool("prefill", engine=engine), pool("decode", engine=engine)] if split else [pool(engine=engine)]
    text = files_of(plan_file(*pools), engine)["router.sh"]
    urls = {"PREFILL": "http://a:1 http://b:2@77", "DECODE": "http://c:3", "WORKERS": "http://a:1 http://b:2"}
    words = run_script(text, "vllm-router" if engine == "vllm" else "python3", tmp_path, **urls)
    assert {word for word in words if word.startswith("--")} <= set(flag_table(f"{engine}-router").types)
    if engine == "sglang" and split:
        first = words.index("--prefill")
        assert words[first : first + 6] == ["--prefill", "http://a:1", "8998", "--prefill", "http://b:2", "77"]
    assert value_of(words, "--decode" if split else "--worker-urls") == ("http://c:3" if split else "http://a:1")


def test_a_gpu_without_known_label_is_selected_by_one_to_be_set_and_a_note_says_so(tmp_path: Path) -> None:
    (tmp_path / "kubernetes").mkdir()
    (tmp_path / "kubernetes" / "node_selectors.toml").write_text('[images.vllm]\nHuawei = "mine/ascend:1"\n')
    files, plan = export(CASES["unlabelled GPU"], 1, "lws", Catalogs((tmp_path,)))
    assert "llm-capacity-planner/gpu: ascend-910b" in files["worker.yaml"]
    assert any("label its nodes llm-capacity-planner/gpu=ascend-910b" in note for note in plan.notes)


def test_the_same_plan_gives_the_same_bytes_whenever_it_was_made() -> None:
    found = plan_file(*PD)
    later = found.model_copy(update={"provenance": found.provenance.model_copy(update={"created": "2027"})})
    for target in TARGETS:
        if target != "trtllm":
            assert files_of(found, target) == files_of(later, target)


def test_weights_that_an_engine_can_make_while_loading_are_asked_for_and_others_noted() -> None:
    words = files_of(CASES["fp8"], "vllm")["worker.sh"]
    assert "--quantization fp8" in words and "--kv-cache-dtype fp8" in words
    stored = plan_file(pool(tp=8, weights="fp8"), model="deepseek-ai/DeepSeek-V3")
    assert "--quantization" not in files_of(stored, "vllm")["worker.sh"]  # its checkpoint is fp8 already
    _, plan = export(plan_file(pool(weights="fp4")), 1, "vllm", Catalogs())
    assert any("fp4" in note and "--model" in note for note in plan.notes)
    files, plan = export(plan_file(pool(weights="fp4")), 1, "vllm", Catalogs(), model="nvidia/some-FP4")
    assert "\n  nvidia/some-FP4\n" in files["worker.sh"] and not plan.notes


def run_script(text: str, program: str, folder: Path, **environment: str) -> list[str]:
    """Run a start script with a stand-in for the engine that prints its arguments."""
    fake = folder / program
    fake.write_text('#!/bin/sh\nfor a in "$@"; do printf "%s\\0" "$a"; done\n')
    fake.chmod(0o755)
    script = folder / "start.sh"
    script.write_text(text)
    path = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": "/nowhere", **environment}
    ran = subprocess.run(["bash", str(script)], env=path, cwd=folder, capture_output=True, check=True)
    return ran.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_name_reaches_the_engine_as_it_is_and_nothing_else_happens(name: str, tmp_path: Path) -> None:
    files = files_of(plan_file(pool(tp=2), model=name), "vllm")
    args = run_script(files["worker.sh"], "vllm", tmp_path)
    assert args[:4] == ["serve", name, "--served-model-name", name]
    assert not (tmp_path / "pwned").exists()
    assert "<script" not in files["README.md"].replace("`<script>alert(1)</script>`", "")


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("target", ["dynamo", "lws", "llm-d", "kserve"])
def test_a_hostile_model_name_survives_yaml_and_names_stay_dns_safe(name: str, target: str) -> None:
    try:
        made = documents(files_of(plan_file(*PD, model=name), target))
    except ExportError as refused:
        assert "URI" in str(refused)  # a path is no hub id
        return
    for document in made:
        if "metadata" in document:
            assert len(document["metadata"]["name"]) <= 63 and document["metadata"]["name"].isascii()
    if target in ("dynamo", "lws"):
        words = next(c["args"] for c in containers(made) if "--served-model-name" in c.get("args", []))
        expanded = (value_of(words, "--served-model-name") or "").replace("$$(", "$(")
        assert expanded == name
    if target == "kserve":
        variables = containers(made)[0]["env"]
        shlex.split(next(v["value"] for v in variables if v["name"] == "VLLM_ADDITIONAL_ARGS"))


def test_names_that_no_engine_can_load_are_refused() -> None:
    for name in ("", "  ", "--trust-remote-code", "a\0b", "a\ud800b"):
        with pytest.raises(InputError):
            files_of(plan_file(pool(), model=name), "vllm")


def test_hostile_engines_and_gpu_names_stay_text(tmp_path: Path) -> None:
    odd = plan_file(pool(engine="<script>\n# x | y"))
    assert "<script>" not in files_of(odd, "vllm")["README.md"]
    (tmp_path / "gpus.toml").write_text('[accelerators.h100-sxm]\nname = "<b>|\\n$(touch pwned)"\n')
    files, _ = export(CASES["one GPU"], 1, "vllm", Catalogs((tmp_path,)), check=True)
    assert "<b>" not in files["README.md"]
    assert run_script(files["worker.sh"], "vllm", tmp_path)[0] == "serve" and not (tmp_path / "pwned").exists()


def test_pools_that_share_the_load_unequally_say_their_shares() -> None:
    mixed = plan_file(pool(tp=2, request_rate=9.0), pool(gpu="l40s", tp=4, request_rate=3.0), mode="mixed")
    text = files_of(mixed, "vllm")["README.md"]
    assert "| 75.0% |" in text and "| 25.0% |" in text and "weight the load balancer" in text
    alone = files_of(CASES["one GPU"], "vllm")["README.md"]
    assert "| 100.0% |" in alone and "weight the load balancer" not in alone


def test_pools_of_different_engines_are_refused() -> None:
    with pytest.raises(ExportError, match="several engines"):
        files_of(plan_file(pool("prefill"), pool("decode", engine="sglang")), "dynamo")


def test_scripts_of_several_nodes_place_each_node(tmp_path: Path) -> None:
    text = files_of(CASES["experts over two nodes"], "vllm")["worker.sh"]
    head = run_script(text, "vllm", tmp_path, HEAD="10.0.0.1", NODE_RANK="0")
    second = run_script(text, "vllm", tmp_path, HEAD="10.0.0.1", NODE_RANK="1", PORT="9000")
    assert "--headless" not in head and "--headless" in second
    assert value_of(second, "--data-parallel-start-rank") == "8" and value_of(second, "--port") == "9000"
    assert value_of(head, "--data-parallel-address") == value_of(second, "--data-parallel-address") == "10.0.0.1"
    staged = files_of(CASES["two nodes, stages"], "vllm")["worker.sh"]
    words = run_script(staged, "vllm", tmp_path, HEAD="h", NODE_RANK="1")
    assert value_of(words, "--nnodes") == "2" and value_of(words, "--node-rank") == "1"


def test_the_shell_of_a_pod_ends_in_the_command_line_of_its_place(tmp_path: Path) -> None:
    wide = files_of(CASES["experts over two nodes"], "lws")
    container = containers(documents(wide))[0]
    text = container["command"][2].replace("$$(", "$(")  # as Kubernetes hands it over
    words = run_script(
        f"set -- {shlex.join(container['args'])}\n{text}", "vllm", tmp_path, LWS_LEADER_ADDRESS="lead",
        LWS_WORKER_INDEX="1",
    )  # fmt: skip
    assert value_of(words, "--data-parallel-start-rank") == "8" and value_of(words, "--data-parallel-address") == "lead"


WIDTHS = st.sampled_from([1, 2, 4, 8])


@given(
    role=st.sampled_from(["aggregated", "pd"]), tp=WIDTHS, attention_dp=WIDTHS, pp=WIDTHS, experts=st.booleans(),
    gpu=st.sampled_from(["h100-sxm", "gb200", "l4", "mi300x", "gh200", "ascend-910b"]),
    weights=st.sampled_from(["bf16", "fp8", "fp4"]), batch=st.integers(0, 5000), replicas=st.integers(1, 300),
    target=st.sampled_from(sorted(TARGETS)), model=st.text(min_size=1, max_size=80), share=st.floats(0, 1),
)  # fmt: skip
def test_whatever_the_plan_files_validate_or_the_reason_is_told(
    role: str, tp: int, attention_dp: int, pp: int, experts: bool, gpu: str, weights: str, batch: int, replicas: int,
    target: str, model: str, share: float,
) -> None:  # fmt: skip
    memory = {"weights_gib": 80 * share, "kv_gib": 1.0, "activations_gib": 2.0, "capacity_gib": 80.0}
    shape = {"tp": tp, "attention_dp": attention_dp, "pp": pp, "ep": tp * attention_dp if experts else 1}
    rest = {"gpu": gpu, "weights": weights, "max_batch": batch, "replicas": replicas, "memory": memory}
    roles = ["aggregated"] if role == "aggregated" else ["prefill", "decode"]
    try:
        files = files_of(plan_file(*(pool(r, **shape, **rest) for r in roles), model=model), target)
    except ExportError as refused:
        assert "fails its schema" not in str(refused) and "would not start" not in str(refused)
    except InputError as refused:
        assert "no engine can load" in str(refused)
    else:
        assert all(text.endswith("\n") for text in files.values())


def drafting(engine: str, method: str, tokens: int = 3, draft: str | None = None) -> PlanFile:
    how = {
        "method": method, "tokens": tokens, "acceptance": [0.8], "acceptance_band": None, "acceptance_source": "given",
        "tokens_per_step": 2.0, "draft": draft,
    }  # fmt: skip
    return plan_file(pool(tp=2, engine=engine, speculation=how))


def test_each_engine_is_told_the_draft_in_its_own_words() -> None:
    vllm = shlex.split(files_of(drafting("vllm", "mtp"), "vllm")["worker.sh"].replace("\\\n", " "), comments=True)
    assert json.loads(value_of(vllm, "--speculative-config") or "") == {"method": "mtp", "num_speculative_tokens": 3}
    sglang = containers(documents(files_of(drafting("sglang", "draft", 3, "llama-3.1-8b"), "lws")))[0]["args"]
    assert value_of(sglang, "--speculative-algorithm") == "STANDALONE"
    assert value_of(sglang, "--speculative-draft-model-path") == "meta-llama/Llama-3.1-8B"
    assert value_of(sglang, "--speculative-num-steps") == "3"
    assert value_of(sglang, "--speculative-num-draft-tokens") == "4"  # and one of the target
    config = documents(files_of(drafting("trtllm", "eagle"), "trtllm", draft="org/head"))[0]
    wanted = {"decoding_type": "Eagle3", "max_draft_len": 3, "speculative_model": "org/head"}
    assert config["speculative_config"] == wanted


@pytest.mark.parametrize("method", ["mtp", "eagle", "ngram", "draft"])
@pytest.mark.parametrize("target", TARGETS)
def test_every_draft_passes_the_check_of_every_target_or_says_why_not(target: str, method: str) -> None:
    engine = target if target in ("sglang", "trtllm") else "vllm"
    named = "llama-3.1-8b" if method == "draft" else None
    if target == "trtllm" and method == "draft":
        with pytest.raises(ExportError, match="separate draft model"):
            files_of(drafting(engine, method, 2, named), target)
        return
    assert files_of(drafting(engine, method, 2, named), target, draft="org/head" if method == "eagle" else None)
    if method == "eagle":
        with pytest.raises(ExportError, match="EAGLE head"):
            files_of(drafting(engine, method), target)


def test_prompts_are_cut_over_context_ranks_where_an_engine_says_so() -> None:
    pools = (pool("prefill", tp=2, cp=4, engine="sglang"), pool("decode", tp=8, engine="sglang"))
    words = containers(documents(files_of(plan_file(*pools), "lws")))[0]["args"]
    assert value_of(words, "--attn-cp-size") == "4" and value_of(words, "--cp-strategy") == "zigzag"
    assert value_of(words, "--tp-size") == "8" and "--enable-prefill-cp" in words

"""The words that a user can type, each declared once with its help; the commands say which of them they take.

Where two commands mean different things by one name, the second is named after its command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from planner.report.completion import complete_fleet, complete_gpu, complete_model, complete_target

# What is asked about: models, fleets, files.
Model = Annotated[
    str,
    Argument(
        help="Catalog name, alias, or path of a Hugging Face config.json or its folder.",
        show_default=False,
        autocompletion=complete_model,
    ),
]
EstimateModel = Annotated[str | None, Argument(help="Model, unless --from is given.", show_default=False)]
CompareModel = Annotated[
    str | None,
    Argument(
        help="Catalog name, alias, or path of a Hugging Face config.json.",
        show_default=False,
        autocompletion=complete_model,
    ),
]
Fleet = Annotated[
    str,
    Option("--fleet", help="GPUs there are: h100-sxm:16[,l40s:8].", show_default=False, autocompletion=complete_fleet),
]
CompareFleets = Annotated[
    list[str] | None,
    Option("--fleet", help="GPU:COUNT[,GPU:COUNT] or a fleet file. Repeatable.", show_default=False),
]
Jobs = Annotated[Path | None, Option("--jobs", help="YAML of models that share each fleet, in place of MODEL.")]
Gpu = Annotated[str | None, Option("--gpu", help="GPU type.", autocompletion=complete_gpu)]
Points = Annotated[Path | None, Option("--from", help="CSV of configurations; one prediction per row.")]
Capacities = Annotated[
    Path, Argument(help="JSON of offers, classes and capacities, a Mélange file, or devices for pipelines.")
]
Study = Annotated[Path, Argument(help="YAML file: options of search, each a value or a list.", show_default=False)]
SchemaOf = Annotated[str, Argument(help="plan (what search saves) or job (the question).", show_default=False)]

# Saved plans.
SavedPlan = Annotated[Path, Argument(help="File written by planner search --out.", show_default=False)]
EarlierPlan = Annotated[Path, Argument(help="Earlier file of planner search --out.", show_default=False)]
LaterPlan = Annotated[Path, Argument(help="Later one.", show_default=False)]
Rank = Annotated[int, Option("--plan", help="Rank of the plan in the file.")]

# Requests: lengths, load, and where they come from.
Isl = Annotated[str | None, Option("--isl", help="Mean prompt tokens, for example 4000 or 4k.")]
Osl = Annotated[str | None, Option("--osl", help="Mean output tokens.")]
Rate = Annotated[str | None, Option("--rate", help="Open loop: requests to carry, for example 20/s.")]
CompareRate = Annotated[str | None, Option("--rate", help="Requests to carry, for example 20/s.")]
SimulateRate = Annotated[str | None, Option("--rate", help="Open loop, for example 20/s. Default: the plan's.")]
Concurrency = Annotated[
    float | None, Option("--concurrency", help="Closed loop: requests in flight over all replicas.")
]
PrefixHit = Annotated[str, Option("--prefix-hit", help="Share of prompt tokens in the prefix cache.")]
Workload = Annotated[Path | None, Option("--workload", help="YAML of request classes.")]
CompareTrace = Annotated[Path | None, Option("--trace", help="Recorded requests, counted into classes.")]
SimulateTrace = Annotated[Path | None, Option("--trace", help="Mooncake, Bailian, Azure or BurstGPT trace to replay.")]
Requests = Annotated[int | None, Option("--requests", help="Requests to send.", min=1)]
Spread = Annotated[float, Option("--spread", help="Coefficient of variation of the lengths.", min=0)]
Arrivals = Annotated[str, Option("--arrivals", help="poisson, gamma, deterministic or on-off.")]
Burstiness = Annotated[float, Option("--burstiness", help="Gamma shape (1 is Poisson), or seconds of an on-off phase.")]
Speed = Annotated[float, Option("--speed", help="Compress the time of the trace.")]
Copies = Annotated[int, Option("--copies", help="Send every row of the trace so often.", min=1)]
Static = Annotated[bool, Option("--static", help="One static batch instead of a closed loop.")]

# Limits and goals.
Ttft = Annotated[str | None, Option("--ttft", help="Limit on time to first token, for example 500ms.")]
Tpot = Annotated[str | None, Option("--tpot", help="Limit on time per output token, for example 30ms.")]
E2e = Annotated[str | None, Option("--e2e", help="Limit on end-to-end time, for example 20s.")]
Percentile = Annotated[str, Option("--percentile", help="Where the limits hold: mean, p50, p90, p95, p99.")]
Objective = Annotated[
    str | None,
    Option(
        "--objective", help="throughput, cost, latency, gpus or energy. Default: cost with --rate, else throughput."
    ),
]
CompareObjective = Annotated[str | None, Option("--objective", help="cost, gpus or energy of a rate. Default: cost.")]
Budget = Annotated[str | None, Option("--budget", help="Most to spend, for example 40usd/h.")]
Power = Annotated[str | None, Option("--power", help="Most board power, for example 20kW.")]
Headroom = Annotated[str, Option("--headroom", help="Highest utilisation to plan with.")]
Spare = Annotated[int, Option("--spare", help="Replicas of any kind that may fail (N+k).", min=0)]
SpotShare = Annotated[str | None, Option("--spot-share", help="Most of the GPUs to rent as spot.")]
RegionFloor = Annotated[list[str] | None, Option("--region-floor", help="Least share of a region: eu=30%. Repeatable.")]

# The deployment: engine, precision, splits.
Engine = Annotated[str, Option("--engine", help="Serving engine profile: vllm, sglang, trtllm ...")]
EngineVersion = Annotated[
    str, Option("--engine-version", help="Version of the engine, where older ones behave otherwise.")
]
Weights = Annotated[
    str | None,
    Option("--weights", help="Weight precisions, or all. Default: the checkpoint's own, and fp8 where the GPU has it."),
]
OneWeights = Annotated[str, Option("--weights", help="Weight precision.")]
Kv = Annotated[
    str | None,
    Option("--kv", help="KV cache precisions: bf16, fp8, int8. Default: bf16, and fp8 beside quantised weights."),
]
OneKv = Annotated[str | None, Option("--kv", help="KV cache precision; default: the engine's.")]
Modes = Annotated[str, Option("--modes", help="Kinds of deployment to consider, comma separated.")]
CompareModes = Annotated[
    str, Option("--modes", help="aggregated, or aggregated,pd for prefill and decode pods as well.")
]
CrossType = Annotated[bool, Option("--cross-type-pipelines", help="Also pipelines over two GPU types (seconds more).")]
Tp = Annotated[int, Option("--tp", help="Attention tensor-parallel width.", min=1)]
AttentionDp = Annotated[int, Option("--attention-dp", help="Attention data-parallel width.", min=1)]
Pp = Annotated[int, Option("--pp", help="Pipeline stages.", min=1)]
Ep = Annotated[int, Option("--ep", help="Expert-parallel width.", min=1)]
Cp = Annotated[int, Option("--cp", help="Context-parallel width.", min=1)]
Replicas = Annotated[int, Option("--replicas", help="Replicas.", min=1)]
CpWidths = Annotated[
    str | None, Option("--cp", help="Context-parallel widths: 1,2,4. Default: 1, up to 8 for long prompts.")
]

# Speculative decoding, and what is known of the engine.
Speculate = Annotated[str | None, Option("--speculate", help="Draft tokens: mtp, eagle, ngram, draft:MODEL or auto.")]
Acceptance = Annotated[
    str | None,
    Option("--acceptance", help="Rate at which drafted tokens are accepted, or one by position: 0.8,0.7."),
]
DraftTokens = Annotated[
    int | None, Option("--draft-tokens", help="Tokens to draft per step. Default: as many as pay.", min=0)
]
TpOverlap = Annotated[
    str | None, Option("--tp-overlap", help="Share of tensor-parallel communication hidden behind compute.")
]
TwoBatchOverlap = Annotated[
    bool, Option("--two-batch-overlap", help="Experts: one half computes while the other's tokens travel.")
]
RedundantExperts = Annotated[
    int | None, Option("--redundant-experts", help="Further copies of busy experts on each rank.", min=0)
]
ExpertImbalance = Annotated[
    float | None, Option("--expert-imbalance", help="Busiest expert rank over the mean, if measured.", min=1)
]
KvTransfer = Annotated[
    str | None, Option("--kv-transfer", help="Split modes: the cache travels by request, chunk or layer.")
]
KvCompression = Annotated[
    float | None, Option("--kv-compression", help="Split modes: bytes of the cache over bytes sent.", min=1)
]

# How to search, solve and simulate.
Top = Annotated[int, Option("--top", help="Plans to show.", min=1, max=1000)]
Simulate = Annotated[bool, Option(help="Re-check the best plans by event simulation.")]
SimulateTop = Annotated[int, Option("--simulate-top", help="Plans to re-check.", min=1, max=1000)]
Seed = Annotated[int, Option("--seed", help="Seed of everything random.", min=0)]
SimulateSeed = Annotated[int, Option("--seed", help="Seed of arrivals and lengths.", min=0)]
Solver = Annotated[str, Option("--solver", help="auto, highs, scip, cp-sat (HiGHS proves its finds) or pulp-cbc.")]
TimeLimit = Annotated[str, Option("--time-limit", help="Stop there with the best plan and its gap.")]
Place = Annotated[str, Option("--on", help="local processes, or a ray cluster.")]
Workers = Annotated[int | None, Option("--workers", help="Processes. Default: the cores.", min=1)]
Fresh = Annotated[bool, Option("--fresh", help="Forget finished rows of an earlier run.")]

# Load tests of the user.
Results = Annotated[list[Path], Argument(help="Load-test results, or a points CSV.", show_default=False)]
TestedModel = Annotated[str, Option("--model", help="Model, where the files do not say.")]
TestedGpu = Annotated[str, Option("--gpu", help="GPU type, where the files do not say.")]
TestedEngine = Annotated[str, Option("--engine", help="Engine, where the files do not say.")]
TestedKv = Annotated[str, Option("--kv", help="KV cache precision; default: the engine's.")]
TestedTp = Annotated[int, Option("--tp", min=1)]
TestedAttentionDp = Annotated[int, Option("--attention-dp", min=1)]
TestedPp = Annotated[int, Option("--pp", min=1)]
TestedEp = Annotated[int, Option("--ep", min=1)]
TestedReplicas = Annotated[int, Option("--replicas", min=1)]
SplitBy = Annotated[str, Option("--by", help="Columns to split by: gpu, model, family, engine, weights.")]

# Exports.
Target = Annotated[
    str,
    Option(
        "--to",
        help="vllm, sglang, trtllm, dynamo, llm-d, kserve or lws.",
        show_default=False,
        autocompletion=complete_target,
    ),
]
Check = Annotated[bool, Option("--check", help="Validate every file offline before writing.")]
Force = Annotated[bool, Option("--force", help="Replace files that exist.")]
Checkpoint = Annotated[
    str | None, Option("--model", help="What engines load, if not the plan's model: a quantised checkpoint.")
]
DraftCheckpoint = Annotated[
    str | None, Option("--draft-model", help="Checkpoint of the EAGLE head or draft that a plan uses.")
]

# Where names are looked up.
Catalog = Annotated[
    list[Path] | None,
    Option("--catalog", help="Folder with your own GPUs, models, engines or prices. Repeatable."),
]
AssumeArch = Annotated[str | None, Option("--assume-arch", help="Family to assume for an unknown model_type.")]
Profile = Annotated[
    Path | None, Option("--profile", help="Calibration that planner calibrate wrote.", show_default=False)
]
Action = Annotated[str | None, Argument(help="'show' for one entry.", show_default=False)]
Name = Annotated[str | None, Argument(help="Name or alias.", show_default=False)]
ModelName = Annotated[str | None, Argument(help="Name, alias or config.json.", show_default=False)]
PricesOf = Annotated[str | None, Argument(help="Only this GPU; or 'show' and it.", show_default=False)]

# Where answers go.
Output = Annotated[str, Option("--output", "-o", help="table, json, yaml, csv or md.")]
ReportOutput = Annotated[str, Option("--output", "-o", help="table, json or md.")]
Out = Annotated[list[Path] | None, Option("--out", help="Also write here; the suffix decides the format. Repeatable.")]
OutFolder = Annotated[Path, Option("--out", help="Folder for the files; made if absent.", show_default=False)]
OutTable = Annotated[Path, Option("--out", help="Table to write: .csv or .parquet.", show_default=False)]
OutProfile = Annotated[Path, Option("--out", help="Where the profile goes.")]
SavePlan = Annotated[Path | None, Option("--save-plan", help="Write a plan file for explain and export; winner first.")]
Report = Annotated[Path | None, Option("--report", help="Also write a report: one HTML file.")]
Timeline = Annotated[
    Path | None, Option("--timeline", help="Queue, batch and KV over time: .csv, or .json (Chrome trace).")
]
Debug = Annotated[bool, Option("--debug", help="Show a traceback on errors.")]

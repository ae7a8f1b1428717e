"""The command line: parse, one call into planner, print. No domain logic.

Heavy modules are imported inside the commands, so that ``planner --help`` stays fast.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from planner.commands import register
from planner.errors import InputError, PlannerError
from planner.report.completion import complete_fleet, complete_gpu, complete_model
from planner.version import __version__

app = typer.Typer(
    name="planner",
    help="Plan how to serve a large language model: which GPUs, how many, split how, at what cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
catalog_app = typer.Typer(
    help="What is known of GPUs, nodes, models, engines and prices, with sources.", no_args_is_help=True
)
app.add_typer(catalog_app, name="catalog")

ModelArg = Annotated[
    str,
    typer.Argument(
        help="Catalog name, alias, or path of a Hugging Face config.json or its folder.", show_default=False,
        autocompletion=complete_model,
    ),
]  # fmt: skip
PlanArg = Annotated[Path, typer.Argument(help="File written by planner search --out.", show_default=False)]
RankOption = Annotated[int, typer.Option("--plan", help="Rank of the plan in the file.")]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, json, yaml, csv or md.")]
ReportOption = Annotated[str, typer.Option("--output", "-o", help="table, json or md.")]
OutOption = Annotated[
    list[Path] | None,
    typer.Option("--out", help="Also write here; the suffix decides the format. Repeatable."),
]
CatalogOption = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Folder with your own GPUs, models, engines or prices. Repeatable."),
]
ProfileOption = Annotated[
    Path | None, typer.Option("--profile", help="Calibration that planner calibrate wrote.", show_default=False)
]
AssumeOption = Annotated[str | None, typer.Option("--assume-arch", help="Family to assume for an unknown model_type.")]
IslOption = Annotated[str | None, typer.Option("--isl", help="Mean prompt tokens, for example 4000 or 4k.")]
OslOption = Annotated[str | None, typer.Option("--osl", help="Mean output tokens.")]
ConcurrencyOption = Annotated[
    float | None, typer.Option("--concurrency", help="Closed loop: requests in flight over all replicas.")
]
EngineOption = Annotated[str, typer.Option("--engine", help="Serving engine profile: vllm, sglang, trtllm ...")]
PrefixOption = Annotated[str, typer.Option("--prefix-hit", help="Share of prompt tokens in the prefix cache.")]
TtftOption = Annotated[str | None, typer.Option("--ttft", help="Limit on time to first token, for example 500ms.")]
TpotOption = Annotated[str | None, typer.Option("--tpot", help="Limit on time per output token, for example 30ms.")]
E2eOption = Annotated[str | None, typer.Option("--e2e", help="Limit on end-to-end time, for example 20s.")]
PercentileOption = Annotated[str, typer.Option("--percentile", help="Where the limits hold: mean, p50, p90, p95, p99.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights", help="Weight precisions, or all. Default: the checkpoint's own, and fp8 where the GPU has it."
    ),
]
KvOption = Annotated[
    str | None,
    typer.Option("--kv", help="KV cache precisions: bf16, fp8, int8. Default: bf16, and fp8 beside quantised weights."),
]
BudgetOption = Annotated[str | None, typer.Option("--budget", help="Most to spend, for example 40usd/h.")]
SolverOption = Annotated[
    str, typer.Option("--solver", help="auto, highs, scip, cp-sat (HiGHS proves its finds) or pulp-cbc.")
]
TimeLimitOption = Annotated[str, typer.Option("--time-limit", help="Stop there with the best plan and its gap.")]
SpeculateOption = Annotated[
    str | None, typer.Option("--speculate", help="Draft tokens: mtp, eagle, ngram, draft:MODEL or auto.")
]
AcceptanceOption = Annotated[
    str | None,
    typer.Option("--acceptance", help="Rate at which drafted tokens are accepted, or one by position: 0.8,0.7."),
]
DraftTokensOption = Annotated[
    int | None, typer.Option("--draft-tokens", help="Tokens to draft per step. Default: as many as pay.", min=0)
]
TpOverlapOption = Annotated[
    str | None, typer.Option("--tp-overlap", help="Share of tensor-parallel communication hidden behind compute.")
]
TwoBatchOption = Annotated[
    bool, typer.Option("--two-batch-overlap", help="Experts: one half computes while the other's tokens travel.")
]
RedundantOption = Annotated[
    int | None, typer.Option("--redundant-experts", help="Further copies of busy experts on each rank.", min=0)
]
ImbalanceOption = Annotated[
    float | None, typer.Option("--expert-imbalance", help="Busiest expert rank over the mean, if measured.", min=1)
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")]
ShowArg = Annotated[str | None, typer.Argument(help="'show' for one entry.", show_default=False)]
NameArg = Annotated[str | None, typer.Argument(help="Name or alias.", show_default=False)]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"planner {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Plan how to serve a large language model: which GPUs, how many, split how, at what cost."""


@app.command()
def search(
    model: ModelArg,
    fleet: Annotated[
        str,
        typer.Option(
            "--fleet", help="GPUs there are: h100-sxm:16[,l40s:8].", show_default=False, autocompletion=complete_fleet
        ),
    ],
    isl: IslOption = None,
    osl: OslOption = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Open loop: requests to carry, for example 20/s.")] = None,
    concurrency: ConcurrencyOption = None,
    prefix_hit: PrefixOption = "0",
    ttft: TtftOption = None,
    tpot: TpotOption = None,
    e2e: E2eOption = None,
    percentile: PercentileOption = "p95",
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="throughput, cost, latency, gpus or energy. Default: cost with --rate, else throughput.",
        ),
    ] = None,
    modes: Annotated[
        str, typer.Option("--modes", help="Kinds of deployment to consider, comma separated.")
    ] = "aggregated",
    weights: WeightsOption = None,
    kv: KvOption = None,
    engine: EngineOption = "vllm",
    budget: BudgetOption = None,
    cp: Annotated[
        str | None, typer.Option("--cp", help="Context-parallel widths: 1,2,4. Default: 1, up to 8 for long prompts.")
    ] = None,
    speculate: SpeculateOption = None,
    acceptance: AcceptanceOption = None,
    draft_tokens: DraftTokensOption = None,
    tp_overlap: TpOverlapOption = None,
    two_batch_overlap: TwoBatchOption = False,
    redundant_experts: RedundantOption = None,
    expert_imbalance: ImbalanceOption = None,
    kv_transfer: Annotated[
        str | None, typer.Option("--kv-transfer", help="Split modes: the cache travels by request, chunk or layer.")
    ] = None,
    kv_compression: Annotated[
        float | None, typer.Option("--kv-compression", help="Split modes: bytes of the cache over bytes sent.", min=1)
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Plans to show.", min=1, max=1000)] = 5,
    simulate: Annotated[bool, typer.Option(help="Re-check the best plans by event simulation.")] = True,
    simulate_top: Annotated[int, typer.Option("--simulate-top", help="Plans to re-check.", min=1, max=1000)] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.", min=0)] = 0,
    report: Annotated[Path | None, typer.Option("--report", help="Also write a report: one HTML file.")] = None,
    output: OutputOption = "table",
    out: OutOption = None,
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    profile: ProfileOption = None,
    debug: DebugOption = False,
) -> None:
    """Rank the plans that fit in memory and meet the latency targets.

    With --rate: the cheapest plan that carries it. With neither --rate nor --concurrency: the most goodput.
    """
    from planner.api import search as run
    from planner.job.argv import question
    from planner.report.calibration import warn_unused
    from planner.report.emit import check_formats, emit_plans
    from planner.report.html_file import check_report, emit_report

    check_formats(output, out)
    check_report(report)
    job = _job(
        model=model, fleet=fleet, isl=isl, osl=osl, rate=rate, concurrency=concurrency, prefix_hit=prefix_hit,
        ttft=ttft, tpot=tpot, e2e=e2e, percentile=percentile, objective=objective, modes=modes, weights=weights, kv=kv,
        engine=engine, budget=budget, top=top, simulate_top=simulate_top if simulate else 0, seed=seed,
        speculate=speculate, acceptance=acceptance, draft_tokens=draft_tokens, tp_overlap=tp_overlap,
        two_batch_overlap=two_batch_overlap, redundant_experts=redundant_experts, expert_imbalance=expert_imbalance,
        cp=cp, kv_transfer=kv_transfer, kv_compression=kv_compression,
    )  # fmt: skip
    with _progress() as progress:
        catalogs, argv = _catalogs(catalog, assume_arch, profile), question(sys.argv[1:])
        found = run(job, catalogs=catalogs, progress=progress, argv=argv)
    emit_plans(found, output, out)
    if found.plans[0].mode != "af":
        warn_unused(catalogs.profile, catalogs.model(job.model).id, found.plans[0].gpus, job.engine)
    emit_report(found, report, _catalogs(catalog, assume_arch))


@app.command()
def estimate(
    model: Annotated[str | None, typer.Argument(help="Model, unless --from is given.", show_default=False)] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="GPU type.", autocompletion=complete_gpu)] = None,
    points: Annotated[
        Path | None, typer.Option("--from", help="CSV of configurations; one prediction per row.")
    ] = None,
    tp: Annotated[int, typer.Option("--tp", help="Attention tensor-parallel width.", min=1)] = 1,
    attention_dp: Annotated[int, typer.Option("--attention-dp", help="Attention data-parallel width.", min=1)] = 1,
    pp: Annotated[int, typer.Option("--pp", help="Pipeline stages.", min=1)] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Expert-parallel width.", min=1)] = 1,
    cp: Annotated[int, typer.Option("--cp", help="Context-parallel width.", min=1)] = 1,
    replicas: Annotated[int, typer.Option("--replicas", help="Replicas.", min=1)] = 1,
    weights: Annotated[str, typer.Option("--weights", help="Weight precision.")] = "bf16",
    kv: Annotated[str | None, typer.Option("--kv", help="KV cache precision; default: the engine's.")] = None,
    isl: IslOption = None,
    osl: OslOption = None,
    concurrency: ConcurrencyOption = None,
    static: Annotated[bool, typer.Option("--static", help="One static batch instead of a closed loop.")] = False,
    engine: EngineOption = "vllm",
    engine_version: Annotated[
        str, typer.Option("--engine-version", help="Version of the engine, where older ones behave otherwise.")
    ] = "",
    speculate: SpeculateOption = None,
    acceptance: AcceptanceOption = None,
    draft_tokens: DraftTokensOption = None,
    tp_overlap: TpOverlapOption = None,
    two_batch_overlap: TwoBatchOption = False,
    redundant_experts: RedundantOption = None,
    expert_imbalance: ImbalanceOption = None,
    output: OutputOption = "table",
    out: OutOption = None,
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    profile: ProfileOption = None,
    debug: DebugOption = False,
) -> None:
    """Predict one fixed configuration with time by operator, or many from a CSV file."""
    from planner.report.emit import check_formats, emit_predictions

    catalogs = _catalogs(catalog, assume_arch, profile)
    if points is not None:
        if model is not None:
            raise InputError(f"MODEL {model!r} and --from cannot go together", hint="the file names the models")
        from planner.api import estimate as run
        from planner.job.points import read_points

        check_formats("csv" if output == "table" else output, out, allowed=("csv", "json"))
        with _progress() as progress:
            progress(f"reading {points}")
            rows = read_points(points)
            progress(f"{len(rows):,} configurations")
            predictions = run(rows, catalogs=catalogs)
        emit_predictions(predictions, "csv" if output == "table" else output, out)
        return
    from planner.job.speculating import parse_speculating
    from planner.job.tuning import parse_tuning
    from planner.report.single import SingleRequest, emit_single

    check_formats(output, out, allowed=("table", "json"))
    request = SingleRequest.checked(
        model=model, gpu=gpu, weights=weights, kv=kv or "", engine=engine, isl=isl, osl=osl, concurrency=concurrency,
        static=static, layout=(tp, attention_dp, pp, ep, cp), replicas=replicas, engine_version=engine_version,
        speculate=parse_speculating(speculate, acceptance, draft_tokens),
        tuning=parse_tuning(tp_overlap, two_batch_overlap, redundant_experts, expert_imbalance),
    )  # fmt: skip
    emit_single(request, catalogs, output, out)


@app.command()
def explain(
    plan: PlanArg,
    rank: RankOption = 1,
    output: OutputOption = "table",
    out: OutOption = None,
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    profile: ProfileOption = None,
    debug: DebugOption = False,
) -> None:
    """Why this plan: time by operator, memory, rejected candidates by reason, what relaxing an SLO buys."""
    from planner.plan import read_plan_file
    from planner.report.emit import check_formats
    from planner.report.explain import FORMATS, emit_explanation, explain_plan

    check_formats(output, out, allowed=FORMATS)
    found = read_plan_file(plan)
    with _progress() as progress:
        explanation = explain_plan(found, rank, _catalogs_of(found, catalog, assume_arch, profile), progress)
    emit_explanation(explanation, output, out)


@app.command()
def simulate(
    plan: PlanArg,
    rank: RankOption = 1,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Open loop, for example 20/s. Default: the plan's.")
    ] = None,
    concurrency: ConcurrencyOption = None,
    requests: Annotated[int | None, typer.Option("--requests", help="Requests to send.", min=1)] = None,
    isl: IslOption = None,
    osl: OslOption = None,
    spread: Annotated[float, typer.Option("--spread", help="Coefficient of variation of the lengths.", min=0)] = 0.0,
    arrivals: Annotated[str, typer.Option("--arrivals", help="poisson, gamma, deterministic or on-off.")] = "poisson",
    burstiness: Annotated[
        float, typer.Option("--burstiness", help="Gamma shape (1 is Poisson), or seconds of an on-off phase.")
    ] = 0.5,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Mooncake, Bailian, Azure or BurstGPT trace to replay.")
    ] = None,
    speed: Annotated[float, typer.Option("--speed", help="Compress the time of the trace.")] = 1.0,
    copies: Annotated[int, typer.Option("--copies", help="Send every row of the trace so often.", min=1)] = 1,
    timeline: Annotated[
        Path | None, typer.Option("--timeline", help="Queue, batch and KV over time: .csv, or .json (Chrome trace).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of arrivals and lengths.", min=0)] = 0,
    output: OutputOption = "table",
    out: OutOption = None,
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    profile: ProfileOption = None,
    debug: DebugOption = False,
) -> None:
    """Replay a workload or a trace on a saved plan, request by request."""
    from planner.api import simulate as run
    from planner.job.traffic import parse_traffic
    from planner.plan import read_plan_file
    from planner.report.emit import check_formats
    from planner.report.replay import check_timeline, emit_replay, show_requests

    check_formats(output, out, allowed=("table", "json", "yaml"))
    check_timeline(timeline)
    options = parse_traffic(
        rate=rate, concurrency=concurrency, isl=isl, osl=osl, requests=requests, arrivals=arrivals,
        burstiness=burstiness, spread=spread, trace=trace, speed=speed, copies=copies, seed=seed,
    )  # fmt: skip
    found = read_plan_file(plan)
    with _progress() as progress:
        catalogs = _catalogs_of(found, catalog, assume_arch, profile)
        done = run(found, rank, options, catalogs=catalogs, progress=show_requests(progress))
    emit_replay(done, output, out, timeline)


@app.command()
def compare(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Catalog name, alias, or path of a Hugging Face config.json.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ] = None,
    fleet: Annotated[
        list[str] | None,
        typer.Option("--fleet", help="GPU:COUNT[,GPU:COUNT] or a fleet file. Repeatable.", show_default=False),
    ] = None,
    save_plan: Annotated[
        Path | None, typer.Option("--save-plan", help="Write a plan file for explain and export; winner first.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option("--jobs", help="YAML of models that share each fleet, in place of MODEL.")
    ] = None,
    isl: IslOption = None,
    osl: OslOption = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Requests to carry, for example 20/s.")] = None,
    workload: Annotated[Path | None, typer.Option("--workload", help="YAML of request classes.")] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Recorded requests, counted into classes.")] = None,
    prefix_hit: PrefixOption = "0",
    ttft: TtftOption = None,
    tpot: TpotOption = None,
    e2e: E2eOption = None,
    percentile: PercentileOption = "p95",
    weights: WeightsOption = None,
    kv: KvOption = None,
    engine: EngineOption = "vllm",
    modes: Annotated[
        str, typer.Option("--modes", help="aggregated, or aggregated,pd for prefill and decode pods as well.")
    ] = "aggregated",
    cross_type: Annotated[
        bool,
        typer.Option("--cross-type-pipelines", help="Also pipelines over two GPU types (seconds more)."),
    ] = False,
    speculate: SpeculateOption = None,
    acceptance: AcceptanceOption = None,
    draft_tokens: DraftTokensOption = None,
    objective: Annotated[
        str | None, typer.Option("--objective", help="cost, gpus or energy of a rate. Default: cost.")
    ] = None,
    headroom: Annotated[str, typer.Option("--headroom", help="Highest utilisation to plan with.")] = "100%",
    spare: Annotated[int, typer.Option("--spare", help="Replicas of any kind that may fail (N+k).", min=0)] = 0,
    budget: BudgetOption = None,
    power: Annotated[str | None, typer.Option("--power", help="Most board power, for example 20kW.")] = None,
    spot_share: Annotated[str | None, typer.Option("--spot-share", help="Most of the GPUs to rent as spot.")] = None,
    region_floor: Annotated[
        list[str] | None, typer.Option("--region-floor", help="Least share of a region: eu=30%. Repeatable.")
    ] = None,
    solver: SolverOption = "auto",
    time_limit: TimeLimitOption = "60s",
    output: OutputOption = "table",
    out: OutOption = None,
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    profile: ProfileOption = None,
    debug: DebugOption = False,
) -> None:
    """The same job on several fleets, on all of them together, and on each GPU type without limit.

    Fleets may mix GPU types and run unequal replicas; every answer is exact and carries its proof.
    """
    from planner.api import compare as run
    from planner.api import comparison_plans
    from planner.comparison.saved import check_can_be_saved
    from planner.job.argv import question
    from planner.job.comparing import parse_comparison
    from planner.plan import to_json
    from planner.report.comparison import emit_comparison
    from planner.report.emit import check_formats, write_whole

    check_formats(output, out, allowed=("table", "json", "yaml", "md"))
    asked = parse_comparison(
        model=model, fleet=fleet or (), isl=isl, osl=osl, rate=rate, workload=workload, trace=trace,
        prefix_hit=prefix_hit, ttft=ttft, tpot=tpot, e2e=e2e, percentile=percentile, weights=weights, kv=kv,
        engine=engine, headroom=headroom, spare=spare, budget=budget, spot_share=spot_share, solver=solver,
        time_limit=time_limit,
        power=power, region_floor=region_floor or (), objective=objective, modes=modes,
        cross_type=cross_type, jobs=jobs, speculate=speculate, acceptance=acceptance, draft_tokens=draft_tokens,
    )  # fmt: skip
    if save_plan is not None:
        check_can_be_saved(asked)
    catalogs = _catalogs(catalog, assume_arch, profile)
    with _progress() as progress:
        found = run(asked, catalogs=catalogs, progress=progress)
    if save_plan is not None and found.winner:
        file = comparison_plans(found, asked, catalogs=catalogs, argv=question(sys.argv[1:]))
        write_whole(save_plan, to_json(file), "--save-plan")
    _leave(emit_comparison(found, asked, output, out))


@app.command()
def allocate(
    profile: Annotated[
        Path, typer.Argument(help="JSON of offers, classes and capacities, a Mélange file, or devices for pipelines.")
    ],
    solver: SolverOption = "auto",
    time_limit: TimeLimitOption = "60s",
    output: OutputOption = "table",
    out: OutOption = None,
    debug: DebugOption = False,
) -> None:
    """Exact mixture of GPU types for capacities that you measured yourself (no cost model).

    A profile with devices and layers asks for pipelines whose stages stand on different GPU types.
    """
    from planner.job.allocation import read_allocation
    from planner.job.pipelines import PipelineProblem
    from planner.report.allocation import emit_allocation
    from planner.report.emit import check_formats
    from planner.report.pipelines import emit_pipelines
    from planner.search.allocate import allocate as run
    from planner.search.mixture import SolveOptions
    from planner.search.pipeline_columns import pipelines_of
    from planner.units import parse_duration

    check_formats(output, out, allowed=("table", "json", "yaml"))
    problem, seconds = read_allocation(profile), parse_duration(time_limit, "--time-limit")
    options = SolveOptions(solver=solver, seconds=seconds)
    if isinstance(problem, PipelineProblem):
        _leave(emit_pipelines(problem, pipelines_of(problem, seconds), output, out))
        return
    result = run(problem, options)
    _leave(emit_allocation(result, output, out))


@app.command()
def validate(
    by: Annotated[str, typer.Option("--by", help="Columns to split by: gpu, model, family, engine, weights.")] = "",
    output: ReportOption = "table",
    out: OutOption = None,
    debug: DebugOption = False,
) -> None:
    """Accuracy of this build on the measured points it ships, in sample and with their group left out of the fit."""
    from planner.accuracy.validate import validate as run
    from planner.report.accuracy import FORMATS, validation_text
    from planner.report.emit import check_formats, emit

    check_formats(output, out, allowed=FORMATS)
    with _progress() as progress:
        progress("predicting the shipped measurements")
        found = run([name.strip() for name in by.split(",") if name.strip()])
    emit(lambda form: validation_text(found, form), output, out)


@app.command()
def calibrate(
    results: Annotated[list[Path], typer.Argument(help="Load-test results, or a points CSV.", show_default=False)],
    model: Annotated[str, typer.Option("--model", help="Model, where the files do not say.")] = "",
    gpu: Annotated[str, typer.Option("--gpu", help="GPU type, where the files do not say.")] = "",
    engine: Annotated[str, typer.Option("--engine", help="Engine, where the files do not say.")] = "",
    weights: Annotated[str, typer.Option("--weights", help="Weight precision.")] = "bf16",
    kv: Annotated[str, typer.Option("--kv", help="KV cache precision; default: the engine's.")] = "",
    tp: Annotated[int, typer.Option("--tp", min=1)] = 1,
    attention_dp: Annotated[int, typer.Option("--attention-dp", min=1)] = 1,
    pp: Annotated[int, typer.Option("--pp", min=1)] = 1,
    ep: Annotated[int, typer.Option("--ep", min=1)] = 1,
    replicas: Annotated[int, typer.Option("--replicas", min=1)] = 1,
    output: ReportOption = "table",
    out: Annotated[Path, typer.Option("--out", help="Where the profile goes.")] = Path("profile.toml"),
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    debug: DebugOption = False,
) -> None:
    """Fit your own load tests: vLLM, SGLang, aiperf, genai-perf, guidellm, points CSV. Three points already help."""
    from planner.accuracy.calibrate import calibrate_results
    from planner.job.results import Deployment
    from planner.report.calibration import emit_calibration
    from planner.report.emit import check_formats

    check_formats(output, None, allowed=("table", "json", "md"))
    layout = {"tp": tp, "attention_dp": attention_dp, "pp": pp, "ep": ep, "replicas": replicas}
    deployment = Deployment(model=model, gpu=gpu, weights=weights, kv=kv, engine=engine, **layout)
    found = calibrate_results(results, deployment, _catalogs(catalog, assume_arch))
    emit_calibration(found, output, out)


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="plan (what search saves) or job (the question).", show_default=False)],
) -> None:
    """Print the JSON Schema of a plan file or of a job."""
    from planner.report.schema import json_schema

    typer.echo(json_schema(what))


@catalog_app.command("gpus")
def catalog_gpus(
    action: ShowArg = None,
    name: NameArg = None,
    output: OutputOption = "table",
    catalog: CatalogOption = None,
    debug: DebugOption = False,
) -> None:
    """List accelerators, or show one with the source of every value."""
    from planner.report.listing import list_gpus, show_gpu

    _list_or_show(
        action, name, output, lambda: list_gpus(_catalogs(catalog)), lambda n: show_gpu(_catalogs(catalog), n)
    )


@catalog_app.command("models")
def catalog_models(
    action: ShowArg = None,
    name: Annotated[str | None, typer.Argument(help="Name, alias or config.json.", show_default=False)] = None,
    output: OutputOption = "table",
    catalog: CatalogOption = None,
    assume_arch: AssumeOption = None,
    debug: DebugOption = False,
) -> None:
    """List models, or show one: parameters, KV cache per token, weight sizes."""
    from planner.report.listing import list_models, show_model

    catalogs = _catalogs(catalog, assume_arch)
    _list_or_show(action, name, output, lambda: list_models(catalogs), lambda n: show_model(catalogs, n))


@catalog_app.command("nodes")
def catalog_nodes(
    action: ShowArg = None,
    name: NameArg = None,
    output: OutputOption = "table",
    catalog: CatalogOption = None,
    debug: DebugOption = False,
) -> None:
    """List servers and instance types with their networks, or show one."""
    from planner.report.listing import list_nodes, show_node

    catalogs = _catalogs(catalog)
    _list_or_show(action, name, output, lambda: list_nodes(catalogs), lambda n: show_node(catalogs, n))


@catalog_app.command("engines")
def catalog_engines(
    action: ShowArg = None,
    name: NameArg = None,
    output: OutputOption = "table",
    catalog: CatalogOption = None,
    debug: DebugOption = False,
) -> None:
    """List serving engine profiles, or show one."""
    from planner.report.listing import list_engines, show_engine

    catalogs = _catalogs(catalog)
    _list_or_show(action, name, output, lambda: list_engines(catalogs), lambda n: show_engine(catalogs, n))


@catalog_app.command("prices")
def catalog_prices(
    action: Annotated[str | None, typer.Argument(help="Only this GPU; or 'show' and it.", show_default=False)] = None,
    name: NameArg = None,
    output: OutputOption = "table",
    catalog: CatalogOption = None,
    debug: DebugOption = False,
) -> None:
    """List dated prices per GPU and hour with provider, region and source."""
    from planner.report.emit import emit_rows
    from planner.report.listing import list_prices

    gpu = name if action == "show" else action
    if (action == "show") != (name is not None):
        raise InputError(f"catalog: cannot read {name or action!r}", hint="planner catalog prices show h100-sxm")
    emit_rows(list_prices(_catalogs(catalog), gpu), output)


register(app)


def _list_or_show(action: str | None, name: str | None, output: str, listing: Any, show: Any) -> None:
    from planner.report.emit import emit_record, emit_rows

    if action is None:
        emit_rows(listing(), output)
    elif action == "show" and name:
        emit_record(show(name), output)
    elif name is None and action != "show":
        emit_record(show(action), output)
    else:
        raise InputError(f"catalog: cannot read {action!r}", hint="planner catalog gpus show h100-sxm")


def _catalogs(folders: list[Path] | None, assume: str | None = None, profile: Path | None = None) -> Any:
    from planner.api import NO_PROFILE, Catalogs
    from planner.report.calibration import note_profile
    from planner.serving.profile import read_profile

    if profile is None:
        return Catalogs(tuple(folders or ()), assume, NO_PROFILE)
    tuned = read_profile(profile)
    note_profile(profile, tuned)
    return Catalogs(tuple(folders or ()), assume, tuned)


def _catalogs_of(file: Any, folders: list[Path] | None, assume: str | None, profile: Path | None) -> Any:
    """The catalogs as a saved plan was made with them, unless another profile is given."""
    from planner.report.calibration import note_profile

    catalogs = _catalogs(folders, assume, profile)
    if profile is None and file.provenance.calibrations:
        catalogs = catalogs.of_plan(file)
        note_profile("the profile of the plan", catalogs.profile)
    return catalogs


def _job(**options: Any) -> Any:
    from planner.job.parse import parse_job

    return parse_job(**options)


def _leave(code: int) -> None:
    """End with ``code``; a solver thread that Ctrl-C left behind must not outlive the output."""
    from planner.search.mixture.backends import leave

    leave(code)
    raise typer.Exit(code)


def _progress() -> Any:
    from planner.report.progress import progress

    return progress()


def main() -> None:
    """Run the command line and turn failures into one line and the documented exit code."""
    gc.set_threshold(100_000, 20, 20)  # what a command builds it needs to its end: looking often finds no garbage
    try:
        code = app(standalone_mode=False)
    except PlannerError as failure:
        _fail(str(failure), failure.hint, failure.exit_code)
    except TyperException as failure:
        if type(failure).__name__ == "NoArgsIsHelpError":  # typer keeps the class to itself
            typer.echo(failure.format_message())
            sys.exit(0)
        message = failure.format_message() if hasattr(failure, "format_message") else str(failure)
        _fail(
            " ".join(message.split()),
            "planner --help, planner COMMAND --help",
            getattr(failure, "exit_code", 2),
        )
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", None, 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as failure:
        if "--debug" in sys.argv:
            raise
        _fail(
            f"a bug in planner: {type(failure).__name__}: {failure}",
            "run again with --debug and report the traceback",
            70,
        )
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, hint: str | None, code: int) -> None:
    if "--debug" in sys.argv and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    typer.echo(f"error: {message}", err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""The command line: every command with its options. Each parses, makes one call into planner and prints.

The options are declared in ``planner/commands/options.py``, saved plans and listings have a file of commands there.
Heavy modules are imported inside the commands, so that ``planner --help`` stays fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from planner.commands import listings, saved
from planner.commands import options as opt
from planner.commands.catalogs import catalogs_of
from planner.commands.running import run
from planner.report.progress import progress, progress_bar
from planner.version import __version__

app = typer.Typer(
    name="planner",
    help="Plan how to serve a large language model: which GPUs, how many, split how, at what cost.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line and turn failures into one line and the documented exit code."""
    run(app)


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


def search(
    model: opt.Model,
    fleet: opt.Fleet,
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    rate: opt.Rate = None,
    concurrency: opt.Concurrency = None,
    prefix_hit: opt.PrefixHit = "0",
    ttft: opt.Ttft = None,
    tpot: opt.Tpot = None,
    e2e: opt.E2e = None,
    percentile: opt.Percentile = "p95",
    objective: opt.Objective = None,
    modes: opt.Modes = "aggregated",
    weights: opt.Weights = None,
    kv: opt.Kv = None,
    engine: opt.Engine = "vllm",
    budget: opt.Budget = None,
    cp: opt.CpWidths = None,
    speculate: opt.Speculate = None,
    acceptance: opt.Acceptance = None,
    draft_tokens: opt.DraftTokens = None,
    tp_overlap: opt.TpOverlap = None,
    two_batch_overlap: opt.TwoBatchOverlap = False,
    redundant_experts: opt.RedundantExperts = None,
    expert_imbalance: opt.ExpertImbalance = None,
    kv_transfer: opt.KvTransfer = None,
    kv_compression: opt.KvCompression = None,
    top: opt.Top = 5,
    simulate: opt.Simulate = True,
    simulate_top: opt.SimulateTop = 5,
    seed: opt.Seed = 0,
    report: opt.Report = None,
    output: opt.Output = "table",
    out: opt.Out = None,
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
) -> None:
    """Rank the plans that fit in memory and meet the latency targets.

    With --rate: the cheapest plan that carries it. With neither --rate nor --concurrency: the most goodput.
    """
    from planner.api import search as run
    from planner.job.argv import question
    from planner.job.parse import parse_job
    from planner.report.calibration import warn_unused
    from planner.report.emit import check_formats, emit_plans
    from planner.report.html_file import check_report, emit_report

    check_formats(output, out)
    check_report(report)
    job = parse_job(
        model=model, fleet=fleet, isl=isl, osl=osl, rate=rate, concurrency=concurrency, prefix_hit=prefix_hit,
        ttft=ttft, tpot=tpot, e2e=e2e, percentile=percentile, objective=objective, modes=modes, weights=weights, kv=kv,
        engine=engine, budget=budget, top=top, simulate_top=simulate_top if simulate else 0, seed=seed,
        speculate=speculate, acceptance=acceptance, draft_tokens=draft_tokens, tp_overlap=tp_overlap,
        two_batch_overlap=two_batch_overlap, redundant_experts=redundant_experts, expert_imbalance=expert_imbalance,
        cp=cp, kv_transfer=kv_transfer, kv_compression=kv_compression,
    )  # fmt: skip
    with progress() as show:
        catalogs = catalogs_of(catalog, assume_arch, profile)
        found = run(job, catalogs=catalogs, progress=show, argv=question(sys.argv[1:]))
    emit_plans(found, output, out)
    if found.plans[0].mode != "af":
        warn_unused(catalogs.profile, catalogs.model(job.model).id, found.plans[0].gpus, job.engine)
    emit_report(found, report, catalogs_of(catalog, assume_arch))


def estimate(
    model: opt.EstimateModel = None,
    gpu: opt.Gpu = None,
    points: opt.Points = None,
    tp: opt.Tp = 1,
    attention_dp: opt.AttentionDp = 1,
    pp: opt.Pp = 1,
    ep: opt.Ep = 1,
    cp: opt.Cp = 1,
    replicas: opt.Replicas = 1,
    weights: opt.OneWeights = "bf16",
    kv: opt.OneKv = None,
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    concurrency: opt.Concurrency = None,
    static: opt.Static = False,
    engine: opt.Engine = "vllm",
    engine_version: opt.EngineVersion = "",
    speculate: opt.Speculate = None,
    acceptance: opt.Acceptance = None,
    draft_tokens: opt.DraftTokens = None,
    tp_overlap: opt.TpOverlap = None,
    two_batch_overlap: opt.TwoBatchOverlap = False,
    redundant_experts: opt.RedundantExperts = None,
    expert_imbalance: opt.ExpertImbalance = None,
    output: opt.Output = "table",
    out: opt.Out = None,
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
) -> None:
    """Predict one fixed configuration with time by operator, or many from a CSV file."""
    from planner.commands.estimates import estimate_file
    from planner.job.speculating import parse_speculating
    from planner.job.tuning import parse_tuning
    from planner.report.emit import check_formats
    from planner.report.single import SingleRequest, emit_single

    catalogs = catalogs_of(catalog, assume_arch, profile)
    if points is not None:
        estimate_file(points, model, catalogs, output, out)
        return
    check_formats(output, out)
    request = SingleRequest.checked(
        model=model, gpu=gpu, weights=weights, kv=kv or "", engine=engine, isl=isl, osl=osl, concurrency=concurrency,
        static=static, layout=(tp, attention_dp, pp, ep, cp), replicas=replicas, engine_version=engine_version,
        speculate=parse_speculating(speculate, acceptance, draft_tokens),
        tuning=parse_tuning(tp_overlap, two_batch_overlap, redundant_experts, expert_imbalance),
    )  # fmt: skip
    emit_single(request, catalogs, output, out)


def compare(
    model: opt.CompareModel = None,
    fleet: opt.CompareFleets = None,
    save_plan: opt.SavePlan = None,
    jobs: opt.Jobs = None,
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    rate: opt.CompareRate = None,
    workload: opt.Workload = None,
    trace: opt.CompareTrace = None,
    prefix_hit: opt.PrefixHit = "0",
    ttft: opt.Ttft = None,
    tpot: opt.Tpot = None,
    e2e: opt.E2e = None,
    percentile: opt.Percentile = "p95",
    weights: opt.Weights = None,
    kv: opt.Kv = None,
    engine: opt.Engine = "vllm",
    modes: opt.CompareModes = "aggregated",
    cross_type: opt.CrossType = False,
    speculate: opt.Speculate = None,
    acceptance: opt.Acceptance = None,
    draft_tokens: opt.DraftTokens = None,
    objective: opt.CompareObjective = None,
    headroom: opt.Headroom = "100%",
    spare: opt.Spare = 0,
    budget: opt.Budget = None,
    power: opt.Power = None,
    spot_share: opt.SpotShare = None,
    region_floor: opt.RegionFloor = None,
    solver: opt.Solver = "auto",
    time_limit: opt.TimeLimit = "60s",
    output: opt.Output = "table",
    out: opt.Out = None,
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
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
    from planner.report.emit import check_formats, check_writable, write_whole

    check_formats(output, out)
    asked = parse_comparison(
        model=model, fleet=fleet or (), isl=isl, osl=osl, rate=rate, workload=workload, trace=trace,
        prefix_hit=prefix_hit, ttft=ttft, tpot=tpot, e2e=e2e, percentile=percentile, weights=weights, kv=kv,
        engine=engine, headroom=headroom, spare=spare, budget=budget, spot_share=spot_share, solver=solver,
        time_limit=time_limit, power=power, region_floor=region_floor or (), objective=objective, modes=modes,
        cross_type=cross_type, jobs=jobs, speculate=speculate, acceptance=acceptance, draft_tokens=draft_tokens,
    )  # fmt: skip
    if save_plan is not None:
        check_can_be_saved(asked)
        check_writable(save_plan, "--save-plan")
    catalogs = catalogs_of(catalog, assume_arch, profile)
    with progress() as show:
        found = run(asked, catalogs=catalogs, progress=show)
    if save_plan is not None and found.winner:
        file = comparison_plans(found, asked, catalogs=catalogs, argv=question(sys.argv[1:]))
        write_whole(save_plan, to_json(file), "--save-plan")
    raise typer.Exit(emit_comparison(found, asked, output, out))


def allocate(
    profile: opt.Capacities,
    solver: opt.Solver = "auto",
    time_limit: opt.TimeLimit = "60s",
    output: opt.Output = "table",
    out: opt.Out = None,
    debug: opt.Debug = False,
) -> None:
    """Exact mixture of GPU types for capacities that you measured yourself (no cost model).

    A profile with devices and layers asks for pipelines whose stages stand on different GPU types.
    """
    from planner.commands.allocation import allocate_file
    from planner.report.emit import check_formats

    check_formats(output, out)
    raise typer.Exit(allocate_file(profile, solver, time_limit, output, out))


def validate(
    by: opt.SplitBy = "",
    output: opt.ReportOutput = "table",
    out: opt.Out = None,
    debug: opt.Debug = False,
) -> None:
    """Accuracy of this build on the measured points it ships, in sample and with their group left out of the fit."""
    from planner.accuracy.validate import validate as run
    from planner.report.accuracy import FORMATS, validation_text
    from planner.report.emit import check_formats, emit

    check_formats(output, out, allowed=FORMATS)
    with progress() as show:
        show("predicting the shipped measurements")
        found = run([name.strip() for name in by.split(",") if name.strip()])
    emit(lambda form: validation_text(found, form), output, out)


def calibrate(
    results: opt.Results,
    model: opt.TestedModel = "",
    gpu: opt.TestedGpu = "",
    engine: opt.TestedEngine = "",
    weights: opt.OneWeights = "bf16",
    kv: opt.TestedKv = "",
    tp: opt.TestedTp = 1,
    attention_dp: opt.TestedAttentionDp = 1,
    pp: opt.TestedPp = 1,
    ep: opt.TestedEp = 1,
    replicas: opt.TestedReplicas = 1,
    output: opt.ReportOutput = "table",
    out: opt.OutProfile = Path("profile.toml"),
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    debug: opt.Debug = False,
) -> None:
    """Fit your own load tests: vLLM, SGLang, aiperf, genai-perf, guidellm, points CSV. Three points already help."""
    from planner.accuracy.calibrate import calibrate_results
    from planner.job.results import Deployment
    from planner.report.calibration import emit_calibration
    from planner.report.emit import check_formats, check_writable

    check_formats(output, None, allowed=("table", "json", "md"))
    check_writable(out)
    deployment = Deployment(
        model=model, gpu=gpu, weights=weights, kv=kv, engine=engine, tp=tp, attention_dp=attention_dp, pp=pp, ep=ep,
        replicas=replicas,
    )  # fmt: skip
    emit_calibration(calibrate_results(results, deployment, catalogs_of(catalog, assume_arch)), output, out)


def schema(what: opt.SchemaOf) -> None:
    """Print the JSON Schema of a plan file or of a job."""
    from planner.report.schema import json_schema

    typer.echo(json_schema(what))


def sweep(
    study: opt.Study,
    out: opt.OutTable,
    on: opt.Place = "local",
    workers: opt.Workers = None,
    fresh: opt.Fresh = False,
    catalog: opt.Catalog = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
) -> None:
    """Search every combination of a study; a run that was stopped goes on where it was."""
    from planner.sweep.run import run_study

    catalogs = catalogs_of(catalog, profile=profile)
    with progress_bar("points") as show:
        done = run_study(study, out, on, workers, fresh, catalogs, show)
    typer.echo(str(out))
    typer.echo(done, err=True)


def doctor(output: opt.Output = "table", catalog: opt.Catalog = None, debug: opt.Debug = False) -> None:
    """Check this installation: packages, solvers, catalogs, the age of prices, the GPUs of this machine."""
    from planner.report.doctor import examine
    from planner.report.emit import check_formats, emit_rows

    check_formats(output, None)
    rows = examine(catalogs_of(catalog))
    emit_rows(rows, output)
    if any(row["status"] == "failure" for row in rows):
        raise typer.Exit(1)


# In the order of the help.
for _command in (
    search, estimate, saved.explain, saved.simulate, compare, allocate, validate, calibrate, schema, saved.export,
    saved.diff, sweep, doctor,
):  # fmt: skip
    app.command()(_command)
app.add_typer(listings.app, name="catalog")


if __name__ == "__main__":
    main()

"""Commands that start from a plan that ``planner search --out`` or ``planner compare --save-plan`` wrote."""

from __future__ import annotations

from planner.commands import options as opt
from planner.commands.catalogs import catalogs_of, catalogs_of_plan
from planner.report.progress import progress


def explain(
    plan: opt.SavedPlan,
    rank: opt.Rank = 1,
    output: opt.Output = "table",
    out: opt.Out = None,
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
) -> None:
    """Why this plan: time by operator, memory, rejected candidates by reason, what relaxing an SLO buys."""
    from planner.plan import read_plan_file
    from planner.report.emit import check_formats
    from planner.report.explain import emit_explanation, explain_plan

    check_formats(output, out)
    found = read_plan_file(plan)
    with progress() as show:
        explanation = explain_plan(found, rank, catalogs_of_plan(found, catalog, assume_arch, profile), show)
    emit_explanation(explanation, output, out)


def simulate(
    plan: opt.SavedPlan,
    rank: opt.Rank = 1,
    rate: opt.SimulateRate = None,
    concurrency: opt.Concurrency = None,
    requests: opt.Requests = None,
    isl: opt.Isl = None,
    osl: opt.Osl = None,
    spread: opt.Spread = 0.0,
    arrivals: opt.Arrivals = "poisson",
    burstiness: opt.Burstiness = 0.5,
    trace: opt.SimulateTrace = None,
    speed: opt.Speed = 1.0,
    copies: opt.Copies = 1,
    timeline: opt.Timeline = None,
    seed: opt.SimulateSeed = 0,
    output: opt.Output = "table",
    out: opt.Out = None,
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    profile: opt.Profile = None,
    debug: opt.Debug = False,
) -> None:
    """Replay a workload or a trace on a saved plan, request by request."""
    from planner.api import simulate as run
    from planner.job.traffic import parse_traffic
    from planner.plan import read_plan_file
    from planner.report.emit import check_formats
    from planner.report.replay import check_timeline, emit_replay, show_requests

    check_formats(output, out)
    check_timeline(timeline)
    traffic = parse_traffic(
        rate=rate, concurrency=concurrency, isl=isl, osl=osl, requests=requests, arrivals=arrivals,
        burstiness=burstiness, spread=spread, trace=trace, speed=speed, copies=copies, seed=seed,
    )  # fmt: skip
    found = read_plan_file(plan)
    with progress() as show:
        catalogs = catalogs_of_plan(found, catalog, assume_arch, profile)
        done = run(found, rank, traffic, catalogs=catalogs, progress=show_requests(show))
    emit_replay(done, output, out, timeline)


def export(
    plan: opt.SavedPlan,
    to: opt.Target,
    out: opt.OutFolder,
    rank: opt.Rank = 1,
    check: opt.Check = False,
    force: opt.Force = False,
    load: opt.Checkpoint = None,
    draft: opt.DraftCheckpoint = None,
    catalog: opt.Catalog = None,
    debug: opt.Debug = False,
) -> None:
    """Write the files that deploy a plan."""
    from planner.export.export import check_target
    from planner.export.export import export as render
    from planner.plan import read_plan_file
    from planner.report.bundle import emit_bundle

    check_target(to)
    found, catalogs = read_plan_file(plan), catalogs_of(catalog)
    files, made = render(found, rank, to, catalogs, model=load, draft=draft, check=check)
    emit_bundle(out, files, force=force, notes=made.notes)


def diff(
    old: opt.EarlierPlan,
    new: opt.LaterPlan,
    rank: opt.Rank = 1,
    output: opt.Output = "table",
    out: opt.Out = None,
    debug: opt.Debug = False,
) -> None:
    """Show what changed between two plans: GPUs, price, speed, and what was asked."""
    from planner.plan import read_plan_file
    from planner.report.diff import emit_changes, plan_changes
    from planner.report.emit import check_formats

    check_formats(output, out)
    emit_changes(plan_changes(read_plan_file(old), read_plan_file(new), rank), output, out)

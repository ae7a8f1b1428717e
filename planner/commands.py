"""Commands that start from saved plans or from this machine: each parses, makes one call and prints.

They live apart from cli.py only for its length; ``register`` hangs them on the same application.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.report.completion import complete_target

PlanArg = Annotated[Path, typer.Argument(help="File written by planner search --out.", show_default=False)]
RankOption = Annotated[int, typer.Option("--plan", help="Rank of the plan in the file.")]
CatalogOption = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Folder with your own GPUs, models, engines or prices. Repeatable."),
]
OutputOption = Annotated[str, typer.Option("--output", "-o", help="table, json, yaml, csv or md.")]
OutOption = Annotated[
    list[Path] | None,
    typer.Option("--out", help="Also write here; the suffix decides the format. Repeatable."),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (export, diff, sweep, doctor):
        app.command()(command)


def export(
    plan: PlanArg,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="vllm, sglang, trtllm, dynamo, llm-d, kserve or lws.",
            show_default=False,
            autocompletion=complete_target,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if absent.", show_default=False)],
    rank: RankOption = 1,
    check: Annotated[bool, typer.Option("--check", help="Validate every file offline before writing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    load: Annotated[
        str | None, typer.Option("--model", help="What engines load, if not the plan's model: a quantised checkpoint.")
    ] = None,
    draft: Annotated[
        str | None, typer.Option("--draft-model", help="Checkpoint of the EAGLE head or draft that a plan uses.")
    ] = None,
    catalog: CatalogOption = None,
    debug: DebugOption = False,
) -> None:
    """Write the files that deploy a plan."""
    from planner.api import Catalogs
    from planner.export.export import check_target
    from planner.export.export import export as render
    from planner.plan import read_plan_file
    from planner.report.bundle import emit_bundle

    check_target(to)
    catalogs = Catalogs(tuple(catalog or ()))
    files, made = render(read_plan_file(plan), rank, to, catalogs, model=load, draft=draft, check=check)
    emit_bundle(out, files, force=force, notes=made.notes)


def diff(
    old: Annotated[Path, typer.Argument(help="Earlier file of planner search --out.", show_default=False)],
    new: Annotated[Path, typer.Argument(help="Later one.", show_default=False)],
    rank: RankOption = 1,
    output: OutputOption = "table",
    out: OutOption = None,
    debug: DebugOption = False,
) -> None:
    """Show what changed between two plans: GPUs, price, speed, and what was asked."""
    from planner.plan import read_plan_file
    from planner.report.diff import emit_changes, plan_changes
    from planner.report.emit import check_formats

    check_formats(output, out)
    emit_changes(plan_changes(read_plan_file(old), read_plan_file(new), rank), output, out)


def doctor(output: OutputOption = "table", catalog: CatalogOption = None, debug: DebugOption = False) -> None:
    """Check this installation: packages, solvers, catalogs, the age of prices, the GPUs of this machine."""
    from planner.api import Catalogs
    from planner.report.doctor import examine
    from planner.report.emit import check_formats, emit_rows

    check_formats(output, None)
    rows = examine(Catalogs(tuple(catalog or ())))
    emit_rows(rows, output)
    if any(row["status"] == "failure" for row in rows):
        raise typer.Exit(1)


def sweep(
    study: Annotated[
        Path, typer.Argument(help="YAML file: options of search, each a value or a list.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Table to write: .csv or .parquet.", show_default=False)],
    on: Annotated[str, typer.Option("--on", help="local processes, or a ray cluster.")] = "local",
    workers: Annotated[int | None, typer.Option("--workers", help="Processes. Default: the cores.", min=1)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget finished rows of an earlier run.")] = False,
    catalog: CatalogOption = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Calibration that planner calibrate wrote.", show_default=False)
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Search every combination of a study; a run that was stopped goes on where it was."""
    from planner.api import NO_PROFILE, Catalogs
    from planner.report.calibration import note_profile
    from planner.report.progress import progress_bar
    from planner.serving.profile import read_profile
    from planner.sweep.run import run_study

    tuned = read_profile(profile) if profile else NO_PROFILE
    if profile:
        note_profile(profile, tuned)
    with progress_bar("points") as show:
        done = run_study(study, out, on, workers, fresh, Catalogs(tuple(catalog or ()), None, tuned), show)
    typer.echo(str(out))
    typer.echo(done, err=True)

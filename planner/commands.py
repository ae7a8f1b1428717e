"""Commands that start from saved plans or from this machine: each parses, makes one call and prints.

They live apart from cli.py only for its length; ``register`` hangs them on the same application.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlanArg = Annotated[Path, typer.Argument(help="File written by planner search --out.", show_default=False)]
RankOption = Annotated[int, typer.Option("--plan", help="Rank of the plan in the file.")]
CatalogOption = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Folder with your own GPUs, models, engines or prices. Repeatable."),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    for command in (export,):
        app.command()(command)


def export(
    plan: PlanArg,
    to: Annotated[
        str, typer.Option("--to", help="vllm, sglang, trtllm, dynamo, llm-d, kserve or lws.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made if absent.", show_default=False)],
    rank: RankOption = 1,
    check: Annotated[bool, typer.Option("--check", help="Validate every file offline before writing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    load: Annotated[
        str | None, typer.Option("--model", help="What engines load, if not the plan's model: a quantised checkpoint.")
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
    files, made = render(read_plan_file(plan), rank, to, catalogs, model=load, check=check)
    emit_bundle(out, files, force=force, notes=made.notes)

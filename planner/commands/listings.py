"""``planner catalog``: lists of what is known, and one entry of a list with the source of every value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from planner.commands import options as opt
from planner.commands.catalogs import catalogs_of
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.api import Catalogs

app = typer.Typer(help="What is known of GPUs, nodes, models, engines and prices, with sources.", no_args_is_help=True)


@app.command()
def gpus(
    action: opt.Action = None,
    name: opt.Name = None,
    output: opt.Output = "table",
    catalog: opt.Catalog = None,
    debug: opt.Debug = False,
) -> None:
    """List accelerators, or show one with the source of every value."""
    _list_or_show("gpus", action, name, output, catalogs_of(catalog))


@app.command()
def models(
    action: opt.Action = None,
    name: opt.ModelName = None,
    output: opt.Output = "table",
    catalog: opt.Catalog = None,
    assume_arch: opt.AssumeArch = None,
    debug: opt.Debug = False,
) -> None:
    """List models, or show one: parameters, KV cache per token, weight sizes."""
    _list_or_show("models", action, name, output, catalogs_of(catalog, assume_arch))


@app.command()
def nodes(
    action: opt.Action = None,
    name: opt.Name = None,
    output: opt.Output = "table",
    catalog: opt.Catalog = None,
    debug: opt.Debug = False,
) -> None:
    """List servers and instance types with their networks, or show one."""
    _list_or_show("nodes", action, name, output, catalogs_of(catalog))


@app.command()
def engines(
    action: opt.Action = None,
    name: opt.Name = None,
    output: opt.Output = "table",
    catalog: opt.Catalog = None,
    debug: opt.Debug = False,
) -> None:
    """List serving engine profiles, or show one."""
    _list_or_show("engines", action, name, output, catalogs_of(catalog))


@app.command()
def prices(
    action: opt.PricesOf = None,
    name: opt.Name = None,
    output: opt.Output = "table",
    catalog: opt.Catalog = None,
    debug: opt.Debug = False,
) -> None:
    """List dated prices per GPU and hour with provider, region and source."""
    from planner.report.emit import emit_rows
    from planner.report.listing import list_prices

    gpu = name if action == "show" else action
    if (action == "show") != (name is not None):
        raise _unreadable("prices", action, name, "h100-sxm")
    emit_rows(list_prices(catalogs_of(catalog), gpu), output)


def _list_or_show(kind: str, action: str | None, name: str | None, output: str, catalogs: Catalogs) -> None:
    """Print all of a kind, or the entry of ``show NAME`` or of ``NAME`` alone. Raises InputError for other words."""
    from planner.report.emit import emit_record, emit_rows
    from planner.report.listing import LISTINGS

    listing = LISTINGS[kind]
    if action is None:
        emit_rows(listing.rows(catalogs), output)
    elif action == "show" and name:
        emit_record(listing.entry(catalogs, name), output)
    elif name is None and action != "show":
        emit_record(listing.entry(catalogs, action), output)
    else:
        raise _unreadable(kind, action, name, listing.example)


def _unreadable(kind: str, action: str | None, name: str | None, example: str) -> InputError:
    words = "'show' without a name" if name is None else f"{action} {name}"
    return InputError(f"catalog {kind}: cannot read {words}", hint=f"planner catalog {kind} show {example}")

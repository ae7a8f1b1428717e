"""Rows and records as table, JSON, YAML, CSV or Markdown text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

FORMATS = ("table", "json", "yaml", "csv", "md")
Row = Mapping[str, Any]
_SHORT = 6  # no column is squeezed below this
_GAPS = (3, 2, 1)  # between columns, as wide as there is room for
_EDGES = 2


def rows_text(rows: Sequence[Row], form: str, *, title: str | None = None) -> str:
    """Write ``rows`` (equal keys) in one of FORMATS; ends with a newline."""
    match form:
        case "json":
            return json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n"
        case "yaml":
            return yaml_text(list(rows))
        case "csv":
            return _csv(rows)
        case "md":
            return _markdown(rows)
        case _:
            return _table(rows, title)


def record_text(record: Row, form: str) -> str:
    """Write one record; as a table it is a column of names and values."""
    if form == "json":
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    if form == "yaml":
        return yaml_text(record)
    return rows_text([{"what": key, "value": _cell(value)} for key, value in record.items()], form)


def yaml_text(data: Any) -> str:
    """Write YAML with the order of keys kept."""
    import yaml

    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return str(value)


def _csv(rows: Sequence[Row]) -> str:
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{k: _plain(v) for k, v in row.items()} for row in rows])
    return stream.getvalue()


def _plain(value: Any) -> Any:
    return _cell(value) if isinstance(value, Mapping | list | tuple) else value


def _markdown(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(_cell(row[n]).replace("|", "\\|") for n in names) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], title: str | None) -> str:
    """A rich table; numbers to the right. Names are escaped, so that markup in them is shown as it stands."""
    import shutil

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return ""
    cells = {name: [_cell(row[name]) for row in rows] for name in rows[0]}
    numeric = {n: all(isinstance(row[n], int | float) or row[n] is None for row in rows) for n in cells}
    widths, gap = _widths(cells, numeric, shutil.get_terminal_size((170, 24)).columns)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, gap - 1, 0, 0))
    for name in cells:
        side: Literal["left", "right"] = "right" if numeric[name] else "left"
        table.add_column(escape(name), justify=side, overflow="fold", width=widths[name])
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(escape, row))
    stream = io.StringIO()
    whole = sum(widths.values()) + gap * (len(widths) - 1) + _EDGES
    Console(file=stream, width=whole, color_system=None, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _widths(
    cells: Mapping[str, Sequence[str]], numeric: Mapping[str, bool], terminal: int
) -> tuple[dict[str, int], int]:
    """Width of every column, and of the gaps between them.

    Where a terminal is narrow, gaps shrink and heads and texts are folded. Numbers and words of a head stay whole:
    below that a table is wider than the terminal, as nothing is cut off.
    """
    from rich.cells import cell_len

    longest = {name: max(map(cell_len, column)) for name, column in cells.items()}
    widths = {
        name: max(size if numeric[name] else min(_SHORT, size), *map(cell_len, name.split()), 1)
        for name, size in longest.items()
    }
    least, room = sum(widths.values()), terminal - _EDGES
    gap = next((g for g in _GAPS if least + g * (len(cells) - 1) <= room), _GAPS[-1])
    spare = max(0, room - least - gap * (len(cells) - 1))
    for wanted in (longest, {name: cell_len(name) for name in cells}):  # texts before heads
        lacks = {name: max(0, wanted[name] - widths[name]) for name in cells}
        for position, name in enumerate(sorted(cells, key=lacks.__getitem__)):
            more = min(lacks[name], spare // (len(cells) - position))  # who lacks little gets it, the rest share
            widths[name] += more
            spare -= more
    return widths, gap

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
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) or row[name] is None for row in rows)
        longest = max(len(_cell(row[name])) for row in rows)
        side: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(escape(name), justify=side, overflow="fold", min_width=min(_SHORT, longest))
    for row in rows:
        table.add_row(*(escape(_cell(row[name])) for name in rows[0]))
    stream = io.StringIO()
    width = shutil.get_terminal_size((170, 24)).columns
    Console(file=stream, width=max(width, 100), color_system=None, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

"""Finished rows on disk, one line each as they come, so that nothing finished is lost; and the table at the end."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from planner.errors import InputError
from planner.report.emit import check_writable, write_whole
from planner.sweep.study import Row

TABLES = (".csv", ".parquet")


def journal_path(table: Path) -> Path:
    """Where the finished rows of a table lie: beside it."""
    return table.with_name(f"{table.name}.journal")


def check_table(table: Path) -> None:
    """Refuse a table that cannot be written, before any work is done."""
    if table.suffix.lower() not in TABLES:
        raise InputError(f"--out {table}: a table is {' or '.join(TABLES)}")
    check_writable(table)
    if table.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(
                f"--out {table}: needs the package pyarrow",
                hint="write .csv, or pip install 'llm-capacity-planner[parquet]'",
            ) from None


def open_journal(table: Path, basis: str, fresh: bool) -> tuple[IO[str], dict[str, Row]]:
    """Return the journal, open for appending, and the rows that it already holds by id.

    Rows of another ``basis`` (other catalogs, another planner) do not count: the journal starts anew. A last line that
    a crash tore is dropped. Raises InputError for a journal that cannot be read or written.
    """
    path, rows = journal_path(table), {}
    try:
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() and not fresh else ""
    except OSError as problem:
        raise InputError(f"{path}: cannot be read: {problem.strerror}", hint="--fresh starts anew") from None
    lines = text.split("\n")
    parsed = [row for row in map(_parse, lines) if row is not None]
    if parsed and parsed[0].get("basis") == basis:
        rows = {str(row["id"]): row for row in parsed[1:] if "id" in row}
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ({"basis": basis}, *rows.values()))
    write_whole(path, text)
    return path.open("a", encoding="utf-8"), rows


def append(journal: IO[str], row: Mapping[str, Any]) -> None:
    """Add a row so that it survives the end of this process."""
    try:
        journal.write(json.dumps(row, ensure_ascii=False) + "\n")
        journal.flush()
    except OSError as problem:
        raise InputError(f"{journal.name}: cannot be written: {problem.strerror}") from None


def write_table(table: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Write the rows in the order of the study."""
    if table.suffix.lower() == ".parquet":
        _write_parquet(table, names, rows)
        return
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(table, stream.getvalue())


def _write_parquet(table: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    import pyarrow
    from pyarrow import parquet

    def column(name: str) -> list[Any]:
        """Whole numbers, numbers, or text where any row holds text."""
        found = [row.get(name) for row in rows]
        kinds = {type(value) for value in found if value is not None}
        kind: Callable[[Any], Any] = int if kinds == {int} else float if kinds <= {int, float} else str
        return [None if value is None else kind(value) for value in found]

    values = {name: column(name) for name in names}
    part = table.with_name(f".{table.name}.part")
    try:
        parquet.write_table(pyarrow.table(values), part)
        os.replace(part, table)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise InputError(f"--out {table}: cannot be written: {problem.strerror}") from None


def _parse(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None

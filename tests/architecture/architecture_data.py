"""What the architecture tests share: published numbers as files, and the reference material beside the checkout."""

from __future__ import annotations

import csv
from pathlib import Path

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[3] / "shared"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file whose leading lines may be comments."""
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))

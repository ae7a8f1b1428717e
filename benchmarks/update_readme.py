"""Write the accuracy table of the README: what ``planner validate -o md`` prints."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from planner.accuracy.validate import validate  # noqa: E402
from planner.report.accuracy import validation_text  # noqa: E402

BEGIN, END = "<!-- planner validate -o md -->\n", "<!-- end -->"


def main() -> None:
    """Replace what stands between the marks."""
    path = ROOT / "README.md"
    before, rest = path.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}{validation_text(validate(), 'md')}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Write what the README repeats: the search of ``make demo``, and the accuracy table of ``planner validate -o md``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from planner.accuracy.validate import validate  # noqa: E402
from planner.report.accuracy import validation_text  # noqa: E402

BEGIN, END = "<!-- planner validate -o md -->\n", "<!-- end -->"
PROMPT, FENCE = "$ planner ", "```\n"


def with_demo(text: str) -> str:
    """The first console block of the README with what its command prints today."""
    before, rest = text.split(f"{FENCE}{PROMPT}", 1)
    line, rest = rest.split("\n", 1)
    after = rest.split(FENCE, 1)[1]
    shown = subprocess.run(
        [sys.executable, "-m", "planner", *line.split()], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "170"},
    )  # fmt: skip
    return f"{before}{FENCE}{PROMPT}{line}\n{shown.stdout}{shown.stderr}{FENCE}{after}"


def main() -> None:
    """Replace what stands between the marks."""
    path = ROOT / "README.md"
    before, rest = with_demo(path.read_text(encoding="utf-8")).split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}{validation_text(validate(), 'md')}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What a calibration found, and the profile file that keeps it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from planner.report.emit import write_whole
from planner.report.formats import rows_text
from planner.serving.profile import FEW, Calibration, Profile


def emit_calibration(profile: Profile, output: str, out: Path) -> None:
    """Save the profile, print one row per entry; errors are of TPOT and throughput, after with each point left out."""
    write_whole(out, profile.text())
    rows = [asdict(entry) if output == "json" else _row(entry) for entry in profile.calibrations]
    sys.stdout.write(rows_text(rows, output))
    if any(entry.points < FEW for entry in profile.calibrations):
        sys.stderr.write(f"fewer than {FEW} results hardly tell a difference from noise: their factors stay near 1\n")
    sys.stderr.write(f"saved to {out}; use it with --profile {out}\n")


def _row(entry: Calibration) -> dict[str, Any]:
    return {
        "model": entry.model,
        "GPU": entry.gpu,
        "engine": entry.engine,
        "points": entry.points,
        "kernels x": entry.kernels,
        "overhead x": entry.overhead,
        "first token x": entry.first_token,
        "error before %": round(100 * entry.error_before, 1),
        "left-one-out error after %": None if entry.points < 2 else round(100 * entry.error_after, 1),
    }

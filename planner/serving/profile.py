"""A user's own calibration: factors on an engine profile for one model, GPU type and engine.

``planner calibrate`` writes it, ``--profile FILE`` applies it. Three factors are enough, because the physics stays:
``kernels`` on the time of all kernels and messages, ``overhead`` on host work and gaps between kernels, and
``first_token`` on what passes before the first token, beyond the prefill.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from planner.errors import InputError
from planner.serving.engine import Engine

KERNELS = ("dense_slowdown", "attention_slowdown", "expert_slowdown", "collective_slowdown")
OVERHEAD = (
    "step", "sequence", "layer_gap", "latent_gap", "recurrent_gap", "sparse_gap", "moe_gap", "quantise_gap",
    "collective_wait",
)  # fmt: skip
FIRST_TOKEN = ("offset", "decode_steps")
FACTORS = ("kernels", "overhead", "first_token")
ANY = "*"
FEW = 3
"""Results below which a calibration keeps close to the built-in prior."""
_FASTEST = 0.85  # of a benchmark loop; beyond it a kernel would come too close to the datasheet
_FIELDS: Mapping[str, tuple[str, ...]] = {"kernels": KERNELS, "overhead": OVERHEAD, "first_token": FIRST_TOKEN}


@dataclass(frozen=True, slots=True)
class Calibration:
    """Factors for one model (``*``: any), GPU and engine; above 1 is slower than the family's prior.

    ``points`` used, ``error_before`` and ``error_after`` the mean error of TPOT and throughput as shares, the latter
    with each point left out in turn.
    """

    model: str
    gpu: str
    engine: str
    kernels: float = 1.0
    overhead: float = 1.0
    first_token: float = 1.0
    points: int = 0
    error_before: float = 0.0
    error_after: float = 0.0

    def apply(self, engine: Engine) -> Engine:
        """The engine profile times the factors."""
        changes: dict[str, float] = {}
        for factor, names in _FIELDS.items():
            scale = float(getattr(self, factor))
            for name in names:
                value = float(getattr(engine, name))
                changes[name] = max(value * scale, min(value, _FASTEST)) if factor == "kernels" else value * scale
        return replace(engine, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Profile:
    """All calibrations of a file."""

    calibrations: Sequence[Calibration] = ()

    def find(self, model: str, gpu: str, engine: str) -> Calibration | None:
        """That of the model, else the one for any model on the GPU, else None."""
        for name in (model, ANY):
            for entry in self.calibrations:
                if (entry.model, entry.gpu, entry.engine) == (name, gpu, engine):
                    return entry
        return None

    def of(self, model: str, engine: str) -> Profile:
        """What of it bears on a model and engine."""
        return Profile(tuple(c for c in self.calibrations if c.model in (model, ANY) and c.engine == engine))

    def text(self) -> str:
        """What the file holds."""
        lines = [
            "# Written by planner calibrate; apply with --profile. Factors above 1 are slower than the built-in prior."
        ]
        for entry in self.calibrations:
            lines.append("\n[[calibration]]")
            for field in fields(entry):
                value = getattr(entry, field.name)
                lines.append(f"{field.name} = {value!r}" if not isinstance(value, str) else f'{field.name} = "{value}"')
        return "\n".join(lines) + "\n"


def read_profile(path: Path) -> Profile:
    """Read a profile. Raises InputError when it is none."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"--profile {path}: cannot be read: {problem.strerror}") from None
    except ValueError as problem:
        raise InputError(f"--profile {path}: not TOML: {problem}", hint="planner calibrate writes one") from None
    rows = data.get("calibration")
    if not isinstance(rows, list) or not rows:
        raise InputError(f"--profile {path}: no [[calibration]]", hint="planner calibrate RESULTS --out profile.toml")
    return parse_profile(rows, f"--profile {path}")


def parse_profile(rows: Sequence[Mapping[str, object]], where: str) -> Profile:
    """Calibrations from the tables of a file. Raises InputError, which names the first that is none."""
    return Profile(tuple(_calibration(row, f"{where}, calibration {n}") for n, row in enumerate(rows, 1)))


def _calibration(row: Mapping[str, object], where: str) -> Calibration:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: not a table")
    known = {field.name for field in fields(Calibration)}
    if unknown := set(row) - known:
        raise InputError(f"{where}: unknown key {sorted(unknown)[0]!r}", hint=f"known: {', '.join(sorted(known))}")
    if missing := {"model", "gpu", "engine"} - set(row):
        raise InputError(f"{where}: no {sorted(missing)[0]}")
    for name in FACTORS:
        value = row.get(name, 1.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0.1 <= value <= 10:
            raise InputError(f"{where}: {name} is {value!r}; it must be a number from 0.1 to 10")
    return Calibration(**row)  # type: ignore[arg-type]

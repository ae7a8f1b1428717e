"""What a prediction of one fixed configuration says."""

from __future__ import annotations

from dataclasses import dataclass

from planner.job.points import Point
from planner.serving.memory import Memory
from planner.units import GIB, format_bytes


@dataclass(frozen=True, slots=True)
class Estimate:
    """Prediction of one point. Times in seconds; ``status`` ok, infeasible (does not fit) or unsupported, with
    ``reason``.
    """

    id: str
    status: str
    reason: str = ""
    ttft: float | None = None
    tpot: float | None = None
    output_rate_per_gpu: float | None = None
    e2e: float | None = None
    memory: float | None = None

    def row(self) -> dict[str, object]:
        """Return the columns of the stable output, in the units their names carry."""

        def scaled(value: float | None, factor: float) -> float | None:
            return None if value is None else float(f"{value * factor:.6g}")

        return {
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "ttft_ms": scaled(self.ttft, 1e3),
            "tpot_ms": scaled(self.tpot, 1e3),
            "output_tok_s_per_gpu": scaled(self.output_rate_per_gpu, 1.0),
            "e2e_latency_ms": scaled(self.e2e, 1e3),
            "memory_gib_per_gpu": scaled(self.memory, 1 / GIB),
        }


def held_bytes(memory: Memory, index: int, requests: float) -> float:
    """Bytes on the fullest GPU with ``requests`` running per attention rank."""
    return float(memory.weights[index] + memory.activations[index] + memory.request[index] * requests)


def does_not_fit(point: Point, memory: Memory, index: int, where: str = "") -> Estimate:
    """Infeasible, with what one GPU would need; ``where`` names the pool."""
    need = memory.capacity - float(memory.room[index]) + float(memory.longest[index])
    have = format_bytes(memory.capacity)
    reason = f"{where}needs {format_bytes(need)} per GPU for weights, reserve and one request, has {have}"
    return Estimate(point.id, "infeasible", reason, memory=need)

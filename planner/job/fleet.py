"""Which GPUs there are: ``h100-sxm:16,a100-sxm-80gb:8``."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from planner.errors import InputError

MAX_GPUS = 100_000


class Fleet(BaseModel):
    """GPU counts by catalog id (as the user wrote it until the catalog resolves it)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: Mapping[str, int] = Field(min_length=1)

    @property
    def total(self) -> int:
        """All GPUs of all types."""
        return sum(self.gpus.values())

    def __str__(self) -> str:
        return ",".join(f"{gpu}:{count}" for gpu, count in self.gpus.items())


def parse_fleet(text: str) -> Fleet:
    """Read ``GPU:COUNT[,GPU:COUNT...]``. The last colon separates the count. Raises InputError."""
    counts: dict[str, int] = {}
    example = "for example --fleet h100-sxm:16 or --fleet h100-sxm:8,l40s:16"
    for item in (part.strip() for part in text.split(",")):
        name, colon, count = item.rpartition(":")
        if not colon or not name.strip():
            raise InputError(f"--fleet: {item!r} is not GPU:COUNT" if item else "--fleet: no GPU given", hint=example)
        try:
            number = int(count)
        except ValueError:
            raise InputError(f"--fleet: {count!r} in {item!r} is not a whole number of GPUs", hint=example) from None
        if not 0 < number <= MAX_GPUS:
            raise InputError(f"--fleet: {number} GPUs in {item!r}; it must be 1 to {MAX_GPUS:,}", hint=example)
        counts[name.strip()] = counts.get(name.strip(), 0) + number
    return Fleet(gpus=counts)

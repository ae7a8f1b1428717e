"""Names of accelerators: an id, or any alias, however it is spaced or capitalised."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from planner.catalog.hardware import Accelerator
from planner.errors import InputError, UnknownNameError

_VENDOR_WORDS = re.compile(r"^(?:nvidia|amd|intel|google|cloud|aws|huawei|instinct|geforce|tesla)+")
_LONGEST_NAME = 200  # nothing longer is a name; keeps the search for near names quick


def normalise(name: str) -> str:
    """Reduce a name to lower-case letters and digits: ``H100-SXM``, ``h100_sxm`` and ``H100 SXM`` are one."""
    return re.sub(r"[^a-z0-9]+", "", name[:_LONGEST_NAME].lower())


class NameIndex:
    """Every name of every accelerator; refuses a name that would mean two of them."""

    def __init__(self, accelerators: Iterable[Accelerator]) -> None:
        self._ids: dict[str, str] = {}
        self._names: list[str] = []
        for accelerator in accelerators:
            for name in (accelerator.id, *accelerator.aliases):
                self._add(name, accelerator.id)

    def _add(self, name: str, accelerator_id: str) -> None:
        key = normalise(name)
        if not key:
            raise InputError(f"accelerator {accelerator_id}: the alias {name!r} has no letter or digit")
        other = self._ids.setdefault(key, accelerator_id)
        if other != accelerator_id:
            raise InputError(
                f"the name {name!r} is ambiguous: accelerators {other} and {accelerator_id} both claim it",
                hint="give one of them another id or alias",
            )
        self._names.append(name)

    def resolve(self, name: str) -> str:
        """Return the id that ``name`` stands for. Raises UnknownNameError with near names.

        A leading vendor (``NVIDIA``, ``AMD Instinct``, ``Tesla``) is ignored unless an alias spells it out.
        """
        key = normalise(name)
        for candidate in (key, _VENDOR_WORDS.sub("", key)):
            if candidate in self._ids:
                return self._ids[candidate]
        raise UnknownNameError("GPU", name[:_LONGEST_NAME], self._names, listing="planner catalog gpus")

    def as_mapping(self) -> Mapping[str, str]:
        """Return id by normalised name."""
        return dict(self._ids)

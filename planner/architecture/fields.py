"""Typed reading of a config.json: aliases as data, one clear error for a wrong value, and a record of what
was read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from planner.errors import InputError

ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": (
        "num_key_value_heads",
        "multi_query_group_num",
        "num_attention_groups",
        "num_kv_heads",
        "n_head_kv",
        "kv_n_heads",
    ),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "value_dim": ("v_head_dim",),
    "vocab": ("vocab_size", "padded_vocab_size"),
    "width": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "ff_intermediate_size", "n_inner", "block_ff_dim"),
    "experts": (
        "num_experts",
        "n_routed_experts",
        "num_local_experts",
        "moe_num_experts",
        "num_routed_experts",
    ),
    "top_k": (
        "num_experts_per_tok",
        "experts_per_token",
        "num_experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_topk",
        "moe_k",
    ),
    "expert_width": ("moe_intermediate_size", "expert_ffn_hidden_size"),
    "shared_experts": (
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
    ),
    "shared_width": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "share_expert_dim",
        "share_expert_dims",
        "shared_intermediate_size",
        "shared_expert_dim",
    ),
    "dense_layers": ("first_k_dense_replace", "num_dense_layers"),
    "mtp_layers": (
        "num_nextn_predict_layers",
        "num_mtp_layers",
        "mtp_num_hidden_layers",
        "mtp_transformer_layers",
        "num_mtp_modules",
    ),
    "max_context": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "seq_length",
        "model_max_length",
        "n_ctx",
    ),
    "window": ("sliding_window", "sliding_window_size"),
    "tied": ("tie_word_embeddings", "tie_embedding"),
}

LARGEST: Final[Mapping[str, int]] = {
    **dict.fromkeys(ALIASES["layers"], 10_000),
    **dict.fromkeys(ALIASES["mtp_layers"], 100),
}
"""Above this a number is a mistake, and would take memory without end."""


class Fields:
    """The fields of one config, read by canonical name or by their own.

    Parameters
    ----------
    raw : the parsed object.
    where : file name for messages.
    defaults : what the model class assumes when the config is silent, by canonical or own name.
    required : what nothing may be assumed for, by canonical or own name: reading such a field when the config is
        silent is refused. The value is the smallest number allowed; with None a null is legal too.
    """

    def __init__(
        self,
        raw: Mapping[str, object],
        where: str,
        defaults: Mapping[str, object],
        required: Mapping[str, int | None] | None = None,
    ) -> None:
        self._raw = raw
        self._defaults = defaults
        self._required = required or {}
        self.where = where
        self.read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._find(name)[1] is not None

    def count(self, name: str, default: int | None = None, *, minimum: int = 1) -> int:
        """Read a whole number of at least ``minimum``; without a default the field must be there. Raises
        InputError."""
        found, value = self._find(name)
        if value is None:
            if default is None:
                raise self.missing(name)
            return default
        return self._whole(found, value, max(minimum, self._required.get(name) or 0))

    def optional(self, name: str, *, minimum: int = 0) -> int | None:
        """Read a whole number, or None where the config has none. Raises InputError for anything else."""
        found, value = self._find(name)
        return None if value is None else self._whole(found, value, max(minimum, self._required.get(name) or 0))

    def flag(self, name: str, default: bool = False) -> bool:
        """Read true or false. Raises InputError for anything else."""
        found, value = self._find(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(found, value, "true or false")
        return value

    def text(self, name: str, default: str = "") -> str:
        """Read a string. Raises InputError for anything else."""
        found, value = self._find(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(found, value, "a string")
        return value

    def items(self, name: str, length: int | None = None) -> Sequence[object] | None:
        """Read a list, of ``length`` where given (longer is cut: MTP layers may follow). Raises
        InputError."""
        found, value = self._find(name)
        if value is None:
            return None
        if not isinstance(value, list) or (length is not None and len(value) < length):
            raise self._wrong(found, value, "a list" if length is None else f"a list of {length} entries")
        return value[:length]

    def inner(self, name: str) -> Fields | None:
        """Read a nested object as fields of their own, or None. Raises InputError for anything else."""
        found, value = self._find(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(found, value, "an object")
        return Fields(value, f"{self.where}: {found}", {})

    def number(self, name: str, default: float) -> float:
        """Read a finite number of at least zero. Raises InputError for anything else."""
        found, value = self._find(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise self._wrong(found, value, "a number of at least zero")
        return float(value)

    def raw(self, name: str) -> object:
        """Read a value of any type, or None."""
        return self._find(name)[1]

    def states(self, name: str) -> bool:
        """Say whether the config has the field, be it null: a null is a choice."""
        return any(given in self._raw for given in ALIASES.get(name, (name,)))

    def missing(self, *names: str) -> InputError:
        """Make the refusal of a config that has none of these fields."""
        listed = " or ".join(alias for name in names for alias in ALIASES.get(name, (name,))[:3])
        return InputError(f"{self.where}: the field {listed} is missing", hint="give the complete config.json")

    def derived(self, raw: Mapping[str, object]) -> Fields:
        """Read other values in place of the config's own, under the same rules."""
        return Fields(raw, self.where, self._defaults, self._required)

    def _find(self, name: str) -> tuple[str, object]:
        """Return the first alias that has a value, else the class default, else None.

        A null is a choice, such as no sliding window, so it keeps the class default away. Raises InputError for a
        required field that the config is silent about.
        """
        names = ALIASES.get(name, (name,))
        self.read.update(names)
        for alias in names:
            value = self._raw.get(alias)
            if value is not None:
                return alias, value
        if name in self._required and (self._required[name] is not None or not self.states(name)):
            raise self.missing(name)
        for alias in (name, *names):
            if alias in self._defaults and not self.states(name):
                return alias, self._defaults[alias]
        return name, None

    def _whole(self, name: str, value: object, minimum: int) -> int:
        whole = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and value == int(value)
        )
        largest = LARGEST.get(name, 1 << 40)
        if not whole or not minimum <= int(value) <= largest:  # type: ignore[call-overload]
            raise self._wrong(name, value, f"a whole number from {minimum} to {largest:,}")
        return int(value)  # type: ignore[call-overload,no-any-return]

    def _wrong(self, name: str, value: object, expected: str) -> InputError:
        shown = repr(value)
        shown = shown if len(shown) <= 40 else shown[:37] + "..."
        return InputError(f"{self.where}: {name} is {shown}", hint=f"it must be {expected}")

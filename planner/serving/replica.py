"""A replica: one copy of a model on GPUs of one kind, run by one engine at one precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from planner.architecture.model import (
    LatentAttention,
    Layer,
    LayerGroup,
    LinearAttention,
    Mamba,
    Model,
    MoeFfn,
    Part,
)
from planner.architecture.precision import FORMATS, WeightFormat, weight_formats
from planner.catalog.hardware import Accelerator
from planner.cost.collective import Topology
from planner.cost.efficiency import Efficiency
from planner.serving.engine import Engine
from planner.serving.layout import Layout, Layouts
from planner.serving.speculation import Speculation

KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625}


@dataclass(frozen=True)
class Stage:
    """Layers ``first`` (included) to ``end`` (excluded) on ``tp`` GPUs; ``replica`` has these layers only."""

    replica: Replica
    tp: int
    first: int
    end: int

    @property
    def gpu(self) -> str:
        """Catalog id of its GPUs."""
        return self.replica.accelerator.id

    @property
    def layouts(self) -> Layouts:
        """Its split, as a column."""
        return Layouts.of([Layout(self.tp)])

    def __str__(self) -> str:
        wide = f" tp{self.tp}" if self.tp > 1 else ""
        return f"{self.first}-{self.end - 1} {self.gpu}{wide}"


@dataclass(frozen=True)
class Replica:
    """What stays fixed while layouts and batches vary.

    Attributes
    ----------
    weights : precision name (``bf16``, ``fp8``, ``fp4``, ``int8``, ``int4``) or ``checkpoint``.
    kv : KV cache precision, a key of ``KV_BYTES``.
    speculation : how it drafts tokens, None for one token per iteration.
    embeds, samples : whether it holds the embedding and the head; stages of a pipeline may not.
    stages : pipeline stages on different GPU types, see serving/stages.py; ``accelerator`` is then that of the first
        one. Empty where all stages are alike.
    """

    model: Model
    accelerator: Accelerator
    efficiency: Efficiency
    engine: Engine
    weights: str = "bf16"
    kv: str = "bf16"
    speculation: Speculation | None = None
    embeds: bool = True
    samples: bool = True
    stages: tuple[Stage, ...] = ()

    @property
    def hardware(self) -> str:
        """GPU types that it stands on."""
        types = dict.fromkeys(stage.gpu for stage in self.stages)
        return "+".join(types) if types else self.accelerator.id

    @property
    def accelerators(self) -> tuple[Accelerator, ...]:
        """Of every GPU type that it stands on."""
        found = {stage.gpu: stage.replica.accelerator for stage in self.stages}
        return tuple(found.values()) or (self.accelerator,)

    def part(self, first: int, end: int) -> Replica:
        """The replica of some of the layers, with the embedding or the head if these are the first or the last."""
        model = replace(self.model, layers=self.model.layers[first:end])
        return replace(self, model=model, embeds=first == 0, samples=end == len(self.model.layers))

    @property
    def prefilling(self) -> Replica:
        """The replica as a prefill worker."""
        return replace(self, engine=self.engine.prefilling)

    @cached_property
    def formats(self) -> Mapping[Part, WeightFormat]:
        """Storage and arithmetic of every part of the weights.

        Block-scaled 4-bit weights are widened in registers (bf16 products) unless the GPU has 4-bit units, where
        engines multiply them by 8-bit activations. At fp8 an engine serves the checkpoint that the model's maker
        published (``published_fp8``: scaled by block or by tensor).
        """
        block_scaled = "fp4" in self.accelerator.flops
        by_maker = FORMATS[self.model.published_fp8]

        def runs(form: WeightFormat) -> WeightFormat:
            if form.native_math == "fp8" and block_scaled:
                return replace(form, math=form.native_math)
            return by_maker if form.name == "fp8" else form

        return {part: runs(form) for part, form in weight_formats(self.model, self.weights).items()}

    @cached_property
    def topology(self) -> Topology:
        """Links of the accelerator."""
        return Topology.of(self.accelerator)

    @cached_property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Distinct layers with their counts."""
        return self.model.groups

    @property
    def kv_bytes(self) -> float:
        """Bytes of one cached element."""
        return KV_BYTES[self.kv]

    @property
    def tokens_per_step(self) -> float:
        """Expected output tokens of a request and iteration."""
        return 1.0 if self.speculation is None else self.speculation.tokens_per_step

    @property
    def step_variance(self) -> float:
        """Variance of the same."""
        return 0.0 if self.speculation is None else self.speculation.variance

    @property
    def verified(self) -> float:
        """Tokens of a request that an iteration computes: the drafted ones and one of its own."""
        return 1.0 if self.speculation is None else 1.0 + self.speculation.tokens

    @property
    def drafting_nothing(self) -> Replica:
        """The same replica without a draft."""
        return self if self.speculation is None else replace(self, speculation=None)

    @property
    def has_experts(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return any(isinstance(group.layer.ffn, MoeFfn) for group in self.groups)

    def layer_gap(self, layer: Layer) -> float:
        """Idle seconds between the kernels of one layer (e2e_learnings: about 30 us, more for latent or linear
        attention).
        """
        engine, mixer = self.engine, layer.mixer
        gap = engine.layer_gap * ((mixer is not None) + (layer.ffn is not None)) / 2
        if isinstance(mixer, LatentAttention):
            gap += engine.latent_gap
        if isinstance(mixer, LinearAttention | Mamba):
            gap += engine.recurrent_gap
        if isinstance(mixer, LatentAttention) and mixer.indexer is not None:
            gap += engine.sparse_gap
        if isinstance(layer.ffn, MoeFfn):
            gap += engine.moe_gap
        return gap

    def on(self, accelerator: Accelerator, efficiency: Efficiency) -> Replica:
        """The same replica on other hardware, with what drafts for it."""
        same = accelerator.vendor == self.accelerator.vendor
        engine, how = self.engine if same else self.engine.on(accelerator.vendor), self.speculation
        if how is not None and how.draft is not None:
            how = replace(how, draft=how.draft.on(accelerator, efficiency))
        return replace(self, accelerator=accelerator, efficiency=efficiency, engine=engine, speculation=how)

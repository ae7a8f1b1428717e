"""Input of ``planner allocate``: capacities that the user measured, or a Mélange configuration.

Every failure is one line that names the field, so that a typing error in a long table is found at once.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt, ValidationError

from planner.errors import InputError, UnknownNameError
from planner.job.invalid import invalid
from planner.job.pipelines import FORMAT as PIPELINES_FORMAT
from planner.job.pipelines import PipelineProblem, check_pipelines, is_pipelines

# Beyond any deployment, and far from the ends of floats: counts and costs are products and ratios of these.
LARGEST, SMALLEST = 1e12, 1e-9
_NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False, strict=True)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Model = TypeVar("_Model", bound=BaseModel)
_FORMAT = (
    'expected {"offers": [{"name", "cost_usd_per_hour"}], "classes": [{"name", "rate"}], "capacity": {OFFER: {CLASS: '
    'rate}}}, if wanted "available" of an offer, "headroom": 0.8, "split": {"slices": 8}'
)
_MELANGE = (
    'expected {"gpu_info": {GPU: {"cost", "tputs"}}, "workload_distribution": [[share]], "total_request_rate": rate}'
)


def _not_tiny(capacity: float) -> float:
    if 0 < capacity < SMALLEST:
        raise ValueError(f"is {capacity:g}; it must be 0 (cannot), or at least {SMALLEST:g} requests/s")
    return capacity


_Capacity = Annotated[_NotNegative, AfterValidator(_not_tiny)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AllocationOffer(_Strict):
    """A machine type at a price in US dollars per hour; ``available`` machines exist (None: no limit)."""

    name: _Name
    cost_usd_per_hour: _NotNegative
    available: Annotated[StrictInt, Field(ge=0)] | None = None


class AllocationClass(_Strict):
    """Requests of one kind, ``rate`` of them per second."""

    name: _Name
    rate: _NotNegative


class Slices(_Strict):
    """A class is cut into so many equal parts, each served by one machine type."""

    slices: Annotated[StrictInt, Field(ge=1, le=100_000)]


class AllocationProblem(_Strict):
    """What ``planner allocate`` is asked: offers, classes, capacity in requests/s by offer and class.

    ``headroom`` is the highest utilisation of each kind, in (0, 1]. A capacity that is absent is 0: cannot.
    """

    offers: Annotated[tuple[AllocationOffer, ...], Field(min_length=1)]
    classes: Annotated[tuple[AllocationClass, ...], Field(min_length=1)]
    capacity: dict[str, dict[str, _Capacity]]
    headroom: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)] = 1.0
    split: Literal["fractional"] | Slices = "fractional"

    @property
    def slices(self) -> int | None:
        """Parts per class, or None if classes divide freely."""
        return self.split.slices if isinstance(self.split, Slices) else None


_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]


class _MelangeGpu(BaseModel):
    model_config = ConfigDict(extra="ignore")
    cost: _NotNegative
    tputs: list[list[_Capacity]]


class _MelangeConfig(BaseModel):
    model_config = ConfigDict(extra="ignore")
    gpu_info: Annotated[dict[_Name, _MelangeGpu], Field(min_length=1)]
    workload_distribution: list[list[_Share]]
    total_request_rate: _NotNegative
    slice_factor: Annotated[StrictInt, Field(ge=1, le=100_000)] = 1


def read_allocation(path: str | Path) -> AllocationProblem | PipelineProblem:
    """Read a profile file (JSON; own format, Mélange's, or devices for pipelines). Raises InputError."""
    where = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not UTF-8 text"
        hint = "it is a JSON file, see: planner allocate --help"
        raise InputError(f"cannot read {where}: {reason}", hint=hint) from None
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where} is not JSON: {error}", hint=_FORMAT) from None
    if is_pipelines(data):
        return check_pipelines(_validated(PipelineProblem, data, where, PIPELINES_FORMAT), where)
    return parse_allocation(data, where)


def parse_allocation(data: object, where: str = "allocation") -> AllocationProblem:
    """Check a profile given as plain data. Raises InputError."""
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a JSON object", hint=_FORMAT)
    if "gpu_info" in data:
        problem = from_melange(_validated(_MelangeConfig, data, where, _MELANGE), where)
    else:
        problem = _validated(AllocationProblem, data, where, _FORMAT)
    _check_names(problem, where)
    return problem


def from_melange(config: _MelangeConfig, where: str = "Mélange configuration") -> AllocationProblem:
    """Translate a Mélange configuration: one class per workload bucket, ``slice_factor`` slices each.

    Buckets are named ``row,column``; the rate of a bucket is its share times ``total_request_rate``.
    """
    shares = config.workload_distribution
    capacity: dict[str, dict[str, float]] = {}
    for name, gpu in config.gpu_info.items():
        if [len(row) for row in gpu.tputs] != [len(row) for row in shares]:
            hint = "one throughput per bucket of workload_distribution"
            raise InputError(f"{where}: gpu_info.{name}.tputs has another shape than workload_distribution", hint=hint)
        capacity[name] = {f"{i},{j}": tput for i, row in enumerate(gpu.tputs) for j, tput in enumerate(row)}
    classes = tuple(
        AllocationClass(name=f"{i},{j}", rate=_product(share, config.total_request_rate))
        for i, row in enumerate(shares)
        for j, share in enumerate(row)
    )
    if not classes:
        raise InputError(f"{where}: workload_distribution is empty", hint=_MELANGE)
    offers = tuple(AllocationOffer(name=n, cost_usd_per_hour=g.cost) for n, g in config.gpu_info.items())
    return AllocationProblem(
        offers=offers, classes=classes, capacity=capacity, split=Slices(slices=config.slice_factor)
    )


def _product(share: float, rate: float) -> float:
    """Product of the decimals as written: 0.1 * 30 is 3, not 3.0000000000000004."""
    return float(Fraction(repr(share)) * Fraction(repr(rate)))


def _check_names(problem: AllocationProblem, where: str) -> None:
    offers = _unique([o.name for o in problem.offers], "offer", where)
    classes = _unique([c.name for c in problem.classes], "class", where)
    for offer, row in problem.capacity.items():
        if offer not in offers:
            raise UnknownNameError(f"offer under capacity in {where}:", offer, offers)
        for name in row:
            if name not in classes:
                raise UnknownNameError(f"class under capacity of {offer} in {where}:", name, classes)


def _unique(names: list[str], kind: str, where: str) -> set[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: {kind} {name!r} is given twice", hint="give each a name of its own")
        seen.add(name)
    return seen


def _validated(kind: type[_Model], data: dict[str, Any], where: str, form: str) -> _Model:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise invalid(error, data, where, hint=form) from None

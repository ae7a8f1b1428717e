"""Names that a shell can complete: models, GPUs and fleets of the built-in catalogs."""

from __future__ import annotations


def complete_model(incomplete: str) -> list[str]:
    """Return the model ids that start so, with or without their organisation."""
    from planner.architecture.catalog import known_models

    wanted = incomplete.lower()
    names = known_models()
    return [n for n in names if n.lower().startswith(wanted)] or [
        n for n in names if n.rpartition("/")[2].lower().startswith(wanted)
    ]


def complete_gpu(incomplete: str) -> list[str]:
    """Return the GPU ids that start so."""
    from planner.catalog.load import load_hardware

    return [gpu for gpu in load_hardware().accelerators if gpu.startswith(incomplete.lower())]


def complete_fleet(incomplete: str) -> list[str]:
    """Return fleets whose last GPU starts so, each with the colon before its count."""
    before, comma, last = incomplete.rpartition(",")
    return [] if ":" in last else [f"{before}{comma}{gpu}:" for gpu in complete_gpu(last)]


def complete_target(incomplete: str) -> list[str]:
    """Return the export targets that start so."""
    targets = ("vllm", "sglang", "trtllm", "dynamo", "llm-d", "kserve", "lws")
    return [target for target in targets if target.startswith(incomplete)]

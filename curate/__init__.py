"""curate: learn how much each training example should count, and get an ordinary sharded dataset."""

from __future__ import annotations

from typing import Any

__all__ = ["Pipeline", "Run", "Stream", "WeightedSampler", "run", "stream"]


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used: `import curate` is instant."""
    from importlib import import_module

    if name in __all__:
        return getattr(import_module("curate.api"), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")

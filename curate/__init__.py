"""curate: learn how much each training example should count, and get an ordinary sharded dataset."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.api import Pipeline, Run, Stream, WeightedSampler, run, stream
    from curate.trainers.selecting_trainer import SelectingTrainer
    from curate.trainers.selector import Selector
    from curate.trainers.weighted_trainer import WeightedTrainer

__all__ = [
    "Pipeline",
    "Run",
    "SelectingTrainer",
    "Selector",
    "Stream",
    "WeightedSampler",
    "WeightedTrainer",
    "run",
    "stream",
]

_TRAINERS = {
    "SelectingTrainer": "curate.trainers.selecting_trainer",
    "Selector": "curate.trainers.selector",
    "WeightedTrainer": "curate.trainers.weighted_trainer",
}
_PACKAGES = ("errors", "methods", "testing")


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used: `import curate` is instant."""
    if name in _PACKAGES:
        return import_module(f"curate.{name}")
    if name in __all__:
        return getattr(import_module(_TRAINERS.get(name, "curate.api")), name)
    raise AttributeError(f"module 'curate' has no attribute {name!r}")

"""Methods that learn how much each sample counts: one module a method, all behind `PoolWeigher` or `BatchWeigher`.

Public names for whoever writes a method; each is loaded when it is first used, and `Entry` and `METHODS` without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.methods.base import (
        VECTORS,
        PoolWeigher,
        Problem,
        Read,
        State,
        on_valid_rows,
        pool_blocks,
        raw_blocks,
        raw_targets,
        unit_blocks,
        unit_rows,
        unit_targets,
    )
    from curate.methods.batch import BatchWeigher, Candidates, Learner, Reading, SampleGradients, Tensors
    from curate.methods.registry import METHODS, Entry
    from curate.methods.selecting import AimedConfig, SelectingConfig, SelectingMethod
    from curate.methods.settings import LoopSettings
    from curate.methods.step_loop import AimedLoopConfig, Measures, MetricLoopConfig, StepLoop, StepLoopConfig
    from curate.methods.tilt import fit_tilt, tilt_weights
    from curate.types import Batch, Features, Section

__all__ = [
    "METHODS",
    "VECTORS",
    "AimedConfig",
    "AimedLoopConfig",
    "Batch",
    "BatchWeigher",
    "Candidates",
    "Entry",
    "Features",
    "Learner",
    "LoopSettings",
    "Measures",
    "MetricLoopConfig",
    "PoolWeigher",
    "Problem",
    "Read",
    "Reading",
    "SampleGradients",
    "Section",
    "SelectingConfig",
    "SelectingMethod",
    "State",
    "StepLoop",
    "StepLoopConfig",
    "Tensors",
    "fit_tilt",
    "on_valid_rows",
    "pool_blocks",
    "raw_blocks",
    "raw_targets",
    "tilt_weights",
    "unit_blocks",
    "unit_rows",
    "unit_targets",
]

_MODULES = {
    "methods.registry": ("METHODS", "Entry"),
    "methods.batch": ("BatchWeigher", "Candidates", "Learner", "Reading", "SampleGradients", "Tensors"),
    "methods.selecting": ("AimedConfig", "SelectingConfig", "SelectingMethod"),
    "methods.settings": ("LoopSettings",),
    "methods.step_loop": ("AimedLoopConfig", "Measures", "MetricLoopConfig", "StepLoop", "StepLoopConfig"),
    "methods.tilt": ("fit_tilt", "tilt_weights"),
    "types": ("Batch", "Features", "Section"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public names load what they need when they are first used."""
    if name in __all__:
        return getattr(import_module(f"curate.{_HOMES.get(name, 'methods.base')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

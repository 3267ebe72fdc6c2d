"""The pipeline file: what its sections are, read strictly, with the line in every message."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curate.config.evaluation import EvaluationConfig
    from curate.config.loading import load, override, read, schema, to_dict, validate
    from curate.config.pipeline import Pipeline

__all__ = ["EvaluationConfig", "Pipeline", "load", "override", "read", "schema", "to_dict", "validate"]

_PLACES = {"EvaluationConfig": "evaluation", "Pipeline": "pipeline"}


def __getattr__(name: str) -> Any:
    """The sections load every method's settings, and torch with them: only for who asks for them."""
    if name in __all__:
        return getattr(import_module(f"curate.config.{_PLACES.get(name, 'loading')}"), name)
    raise AttributeError(f"module 'curate.config' has no attribute {name!r}")

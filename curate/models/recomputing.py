"""Blocks that forget their activations and compute them again in the backward pass: less memory, more time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from curate.errors import ModelError

_runs: list[object] = []
"""Runs of blocks that are going on, the innermost last; a block that is run again has the mark of its first run."""


def run_now() -> object | None:
    """The mark of the run of a recomputed block that is going on: the same in the forward pass and when it comes again."""
    return _runs[-1] if _runs else None


def recompute_blocks(causal: PreTrainedModel) -> None:
    """Let every block compute its activations twice. Raises ModelError if the model cannot.

    transformers does so in training mode only. The blocks alone are told that they train, and inside of them the word is
    taken back, since some ask it whether to drop.
    """
    blocks = [module for module in causal.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not (causal.supports_gradient_checkpointing and blocks):
        found, fix = f"{type(causal).__name__} without it", "Remove model.gradient_checkpointing."
        raise ModelError("model.gradient_checkpointing", found, "a model that can recompute its blocks", fix)
    causal.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    for block in blocks:
        block.training = True  # of the block only, not of what is in it
        own: Any = partial(_checkpointed, block, block._gradient_checkpointing_func)
        block._gradient_checkpointing_func = own


def _checkpointed(block: GradientCheckpointingLayer, checkpoint: Any, body: Callable[..., Any], *given: Any) -> Any:
    return checkpoint(partial(_run, block, object(), body), *given)


def _run(block: GradientCheckpointingLayer, mark: object, body: Callable[..., Any], *given: Any) -> Any:
    block.training = False
    _runs.append(mark)
    try:
        return body(*given)
    finally:
        _runs.pop()
        block.training = True

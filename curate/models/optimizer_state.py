"""Adam's moments from a checkpoint somebody else's trainer wrote: for LESS, the state at the model's own checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from curate.errors import ModelError
from curate.models.optimizer_found import WHOLE, Found, check_settings, check_shape
from curate.models.optimizer_sharded import METADATA, read_sharded
from curate.models.optimizer_torch import read_torch
from curate.models.optimizer_zero import find_zero, read_zero
from curate.models.warmup import Moments, load_optimizer

TORCH_BETAS = (0.9, 0.999)
"""Decays of Adam's moments where a checkpoint does not say: torch's own."""
OWN = "optimizer.safetensors"
FILES = {"optimizer.pt": "Hugging Face Trainer", "optimizer.bin": "Accelerate"}
SHARDED = (".", "optimizer_0", "optimizer")
"""Where in a checkpoint a directory by `torch.distributed.checkpoint` may be."""
WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"}
"""Parts of a parameter's name put there by compilation, FSDP, activation checkpointing and adapters."""
EXPECTED = "optimizer.pt, optimizer.bin, optimizer.safetensors, DeepSpeed's or torch.distributed.checkpoint's files"


@dataclass(frozen=True)
class Matched:
    """Optimizer state of a checkpoint, by parameter of a model.

    Attributes:
        path: the checkpoint.
        layout: who writes checkpoints laid out like it.
        order: how its numbers became names, if it numbers its parameters; "" otherwise.
        moments: Adam's state by parameter name.
        beta1: decay of the first moment; None if the checkpoint does not say, or says several.
        beta2: decay of the second moment, likewise.
        epsilon: Adam's eps, likewise.
        without_state: parameters asked for that have no state.
        without_parameter: entries of the checkpoint that are no parameter of the model.
    """

    path: Path
    layout: str
    order: str
    moments: dict[str, Moments]
    beta1: float | None
    beta2: float | None
    epsilon: float | None
    without_state: tuple[str, ...]
    without_parameter: tuple[str, ...]

    def describe(self) -> str:
        """One line on what was found, for the user."""
        count = len(self.moments)
        line = f"optimizer state of {self.path.name} ({self.layout}): "
        line += f"{count} of {count + len(self.without_state)} parameters matched"
        if self.order:
            line += f", by {self.order}"
        if self.without_parameter:
            line += f"; entries without a parameter: {len(self.without_parameter)}"
        if self.beta1 is None or self.beta2 is None:
            line += f"; it does not say Adam's betas, or says several: {TORCH_BETAS[0]} and {TORCH_BETAS[1]} are taken"
        return line


def read_moments(path: Path, causal: nn.Module, *, names: Collection[str] | None = None) -> Matched:
    """Read the Adam or AdamW state a trainer saved, without running code from its files.

    Layouts: our own `optimizer.safetensors`; `optimizer.pt` of the Hugging Face Trainer and any file of a torch
    optimizer's state dict; directories by Accelerate, by DeepSpeed (ZeRO 1 to 3, universal, none) and by
    `torch.distributed.checkpoint` (FSDP).

    Args:
        path: a checkpoint's file or directory.
        causal: the Hugging Face model, adapters in place.
        names: parameters whose state is wanted, as `causal.named_parameters()` names them; all by default. The
            state of others is not kept in memory.

    Returns:
        The state found. A step the checkpoint does not state is 0.

    Raises:
        ModelError: nothing is there, the files are damaged or hold code, the optimizer is none of Adam's kind,
            numbered parameters are in no known order, a shape disagrees, or no parameter asked for has a state.
    """
    parameters = dict(causal.named_parameters())
    plain = {plain_name(name): name for name in parameters}
    wanted = list(parameters if names is None else names)
    with _structure(path):
        found = _find(path, causal)
        check_settings(str(path), found.groups)
        named = {plain[plain_name(name)]: read for name, read in found.readers.items() if plain_name(name) in plain}
        moments = {name: named[name](parameters[name].shape) for name in wanted if name in named}
        beta1, beta2 = found.common("betas") or (None, None)
        epsilon = found.common("eps")
    if not moments:
        raise ModelError(
            str(path),
            f"state of {', '.join(list(found.readers)[:2]) or 'no parameter'}",
            f"state of {', '.join(wanted[:2])}",
            "Name a checkpoint of this model that was trained the same way: with adapters for `model.lora`.",
        )
    return Matched(
        path=path,
        layout=found.layout,
        order=found.order,
        moments=moments,
        beta1=beta1,
        beta2=beta2,
        epsilon=epsilon,
        without_state=tuple(name for name in wanted if name not in named),
        without_parameter=tuple(name for name in found.readers if plain_name(name) not in plain),
    )


def plain_name(name: str) -> str:
    """A parameter's name without the wrappers a trainer puts around the model or its layers."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while parts[:1] == ["module"]:
        parts = parts[1:]
    return ".".join(parts[2:] if parts[:2] == ["base_model", "model"] else parts)


@contextmanager
def _structure(path: Path) -> Iterator[None]:
    """A checkpoint that is not built as its file names say is refused, not stumbled over."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, OSError) as error:
        found = f"files of an unexpected structure ({type(error).__name__}: {error})"
        raise ModelError(str(path), found, EXPECTED, WHOLE) from error


def _find(path: Path, causal: nn.Module) -> Found:
    if path.is_file():
        if path.suffix == ".safetensors":
            return _own(path)
        return read_torch(path, causal, layout=FILES.get(path.name, "torch"))
    if path.is_dir():
        if (zero := find_zero(path)) is not None:
            return read_zero(zero, causal)
        for name in (OWN, *FILES):
            if (path / name).is_file():
                return _find(path / name, causal)
        for name in SHARDED:
            if (path / name / METADATA).is_file():
                return read_sharded(path / name)
    raise _nothing(path)


def _own(path: Path) -> Found:
    moments = load_optimizer(path.read_bytes())
    return Found("curate", {name: partial(_shaped, f"{path}: {name}", state) for name, state in moments.items()})


def _shaped(where: str, state: Moments, shape: torch.Size) -> Moments:
    for moment in (state.exp_avg, state.exp_avg_sq):
        check_shape(where, moment.shape, shape)
    return state


def _nothing(path: Path) -> ModelError:
    inside = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    checkpoints = [name for name in inside if name.startswith("checkpoint-")]
    listed = f"{', '.join((checkpoints or inside)[:6]) or 'an empty directory'}" if path.is_dir() else "nothing"
    fix = "Name one of them." if checkpoints else "Save the optimizer with the model (`save_only_model: false`)."
    return ModelError(str(path), listed, EXPECTED, fix)

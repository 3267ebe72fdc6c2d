"""Optimizer state that DeepSpeed's ZeRO cut over processes, and its universal checkpoints.

Each process has flat vectors, one a parameter group (stages 1 and 2) or sub-group (stage 3). Stages 1 and 2 cut one
long vector of all parameters into equal shares, and each file says which part of which parameter it has. Stage 3
gives every process an equal share of every parameter, the last one padded, in the order of `param_shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import ModelError
from curate.models.optimizer_found import ADAM, WHOLE, Found, check_adam, check_shape, make_moments
from curate.models.optimizer_torch import from_state_dict
from curate.models.torch_checkpoint import load_torch
from curate.models.warmup import Moments

SHARE = re.compile(r"(?:\w+_)?zero_pp_rank_(?P<rank>\d+)_mp_rank_(?P<part>\d+)_optim_states\.pt")
LATEST = ("latest", "latest_universal")
"""Files that name the directory to read."""
UNIVERSAL = "zero"
MODEL = "mp_rank_00_model_states.pt"
MODEL_3 = "zero_pp_rank_0_mp_rank_00_model_states.pt"


def find_zero(path: Path) -> Path | None:
    """The directory of DeepSpeed's files in a checkpoint: itself, what `latest` names, or the newest `global_step*`."""
    if _is_zero(path):
        return path
    tags = [(path / name).read_text("utf-8").strip() for name in LATEST if (path / name).is_file()]
    steps = sorted(path.glob("global_step*"), key=lambda step: (len(step.name), step.name), reverse=True)
    inside = [path / tag for tag in tags if Path(tag).name == tag != ".."] if tags else steps
    return next((step for step in inside if _is_zero(step)), None)


def read_zero(directory: Path, causal: nn.Module) -> Found:
    """Adam's state in a directory that `find_zero` found.

    Args:
        directory: the directory.
        causal: the model; only asked where DeepSpeed was used without ZeRO and parameters are numbered.

    Raises:
        ModelError: files are missing, model-parallel, or hold the state of another optimizer.
    """
    if (directory / UNIVERSAL).is_dir():
        return _universal(directory / UNIVERSAL)
    files = _shares(directory)
    if not files:
        content = load_torch(directory / MODEL)
        return from_state_dict(content, causal, where=str(directory / MODEL), layout="DeepSpeed without ZeRO")
    contents = [load_torch(file)["optimizer_state_dict"] for file in files]
    counts = contents[0]["partition_count"]
    count = max(counts) if isinstance(counts, list) else counts
    if count != len(files):
        raise ModelError(str(directory), f"the files of {len(files)} processes", f"those of {count}", WHOLE)
    if "base_optimizer_state" in contents[0]:
        return _stages_1_and_2(directory, contents)
    return _stage_3(directory, contents)


def _is_zero(path: Path) -> bool:
    return path.is_dir() and (
        (path / MODEL).is_file() or (path / UNIVERSAL).is_dir() or any(path.glob("*zero_pp_rank_*"))
    )


def _shares(directory: Path) -> list[Path]:
    found = {file: match for file in sorted(directory.iterdir()) if (match := SHARE.fullmatch(file.name))}
    if any(int(match["part"]) for match in found.values()):
        raise ModelError(
            str(directory),
            "tensor-parallel files (mp_rank_01)",
            "files of mp_rank_00 only",
            "Convert the checkpoint with DeepSpeed's ds_to_universal.py and name the result.",
        )
    return sorted(found, key=lambda file: int(found[file]["rank"]))


@dataclass(frozen=True)
class _Piece:
    """Part of a parameter: `size` numbers of each of the flat vectors in `state`, from `start`."""

    state: Mapping[str, Any]
    start: int
    size: int


def _stages_1_and_2(directory: Path, contents: Sequence[Mapping[str, Any]]) -> Found:
    pieces: dict[str, list[_Piece]] = {}
    for content in contents:
        for state, mapping in zip(_flat(content), content["param_slice_mappings"], strict=True):
            for name, part in mapping.items():
                check_adam(f"{directory}: state of {name}", state)
                pieces.setdefault(name, []).append(_Piece(state, part.start, part.numel))
    base = contents[0]["base_optimizer_state"]
    groups = base["param_groups"] if isinstance(base, Mapping) else []
    readers = {name: partial(_join, f"{directory}: {name}", parts, None) for name, parts in pieces.items()}
    return Found("DeepSpeed ZeRO-1/2", readers, groups)


def _flat(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """State of each group's vector; "elastic" checkpoints have a list of them in place of a state dict.

    Fused optimizers count their steps once a group, and not beside the moments.
    """
    base = content["base_optimizer_state"]
    if not isinstance(base, Mapping):
        return [{"step": content.get("base_optimizer_state_step")} | state for state in base]
    return _with_steps(base)


def _with_steps(state_dict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = {number: group.get("step") for group in state_dict["param_groups"] for number in group["params"]}
    return [{"step": steps.get(number)} | state for number, state in sorted(state_dict["state"].items())]


def _stage_3(directory: Path, contents: Sequence[Mapping[str, Any]]) -> Found:
    shapes = {name: shape for group in load_torch(directory / MODEL_3)["param_shapes"] for name, shape in group.items()}
    shares = {name: -(-shape.numel() // len(contents)) for name, shape in shapes.items()}
    cut = [_cut(directory, _with_steps(content["optimizer_state_dict"]), shares) for content in contents]
    readers = {
        name: partial(_join, f"{directory}: {name}", [pieces[name] for pieces in cut], shape)
        for name, shape in shapes.items()
    }
    return Found("DeepSpeed ZeRO-3", readers, contents[0]["optimizer_state_dict"]["param_groups"])


def _cut(directory: Path, states: Sequence[Mapping[str, Any]], shares: Mapping[str, int]) -> dict[str, _Piece]:
    """One process's share of each parameter; none lies across two sub-groups."""
    pieces: dict[str, _Piece] = {}
    waiting = iter(shares.items())
    for state in states:
        check_adam(f"{directory}: state of a sub-group", state)
        start, end = 0, state["exp_avg"].numel()
        while start < end and (share := next(waiting, None)):
            name, size = share
            pieces[name] = _Piece(state, start, size)
            start += size
        if start != end:
            raise ModelError(str(directory), f"{end} numbers in a sub-group", f"{start}, by `param_shapes`", WHOLE)
    if len(pieces) < len(shares):
        raise ModelError(str(directory), f"{len(pieces)} parameters", f"{len(shares)}, by `param_shapes`", WHOLE)
    return pieces


def _join(where: str, pieces: Sequence[_Piece], stated: torch.Size | None, shape: torch.Size) -> Moments:
    """Moments of one parameter from the pieces of all processes in order.

    Where the checkpoint states the shape, every process has an equal share and padding follows the last number.
    """
    exp_avg, exp_avg_sq = (
        torch.cat([piece.state[slot].flatten()[piece.start : piece.start + piece.size] for piece in pieces])
        for slot in ADAM
    )
    if stated is None:
        check_shape(where, exp_avg.shape, (shape.numel(),))
    else:
        check_shape(where, stated, shape)
    size = shape.numel()
    return make_moments(exp_avg[:size].view(shape), exp_avg_sq[:size].view(shape), pieces[0].state["step"])


def _universal(directory: Path) -> Found:
    names = [path.name for path in sorted(directory.iterdir()) if path.is_dir()]
    for name in names:
        check_adam(f"{directory / name}", (file.stem for file in sorted((directory / name).glob("*.pt"))))
    common = directory / "optimizer_state.pt"
    groups = load_torch(common).get("param_groups", []) if common.is_file() else []
    readers = {name: partial(_read_universal, directory / name) for name in names}
    return Found("DeepSpeed universal checkpoint", readers, groups)


def _read_universal(directory: Path, shape: torch.Size) -> Moments:
    exp_avg, exp_avg_sq = (_tensor(directory / f"{slot}.pt", shape) for slot in ADAM)
    step = directory / "step.pt"
    return make_moments(exp_avg, exp_avg_sq, load_torch(step) if step.is_file() else None)


def _tensor(file: Path, shape: torch.Size) -> Tensor:
    """A moment; those converted from stage 3 are flat and bare."""
    content = load_torch(file)
    tensor = content if isinstance(content, Tensor) else content["param"]
    check_shape(str(file), tensor.shape, (shape.numel(),) if tensor.ndim == 1 else shape)
    return tensor.view(shape)

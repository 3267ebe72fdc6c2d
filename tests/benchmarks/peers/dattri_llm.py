"""dattri-llm 0.1.0 in its own environment, at its cheapest settings.

    python -m peers.dattri_llm FOLDER       # speaks the protocol of server.py

Weights are frozen by the caller (nothing is computed for them), samples are named by their token ids alone, and
features are contracted inside the hooks.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from dattri_llm import DataSelectionCallback, HookManager, HookManagerConfig
from material import batch
from server import Run, serve
from transformers import AutoModelForCausalLM

RANK = 16
STEPS = 8
"""Training steps of a call, with the targets of all from one pass."""
CANDIDATES_OF_A_STEP = 2
LAYERS = [r"layers\."]


def hooked(folder: Path, **settings: Any) -> tuple[torch.nn.Module, HookManager]:
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    model.requires_grad_(False)
    model.enable_input_require_grads()
    warnings.filterwarnings("ignore", message=".*hooked layer.*no trainable parameter.*")
    config = HookManagerConfig(linear_io=LAYERS, include_frozen=True, **settings)
    return model, HookManager(model, config, sample_hash_fields=["input_ids"])


def backward(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach()


def concat(folder: Path) -> Run:
    """One batch of features: a p x p block for each module."""
    projection = {"style": "logra", "proj_dim": RANK, "proj_max_batch_size": 8, "proj_type": "rademacher"}
    ids = batch(folder)[0]
    model, manager = hooked(folder, projection_kwargs={"__default__": projection}, capture_style="materialized")

    def run() -> float:
        with manager.collect():
            loss = backward(model, ids)
            blocks = manager.get_gradient().data
        torch.cat([block.flatten(1) for block in blocks.values()], dim=1)
        return float(loss)

    return run


def gram(mode: str, folder: Path) -> Run:
    """Inner products of the exact gradients of all samples with all of the target's.

    `dense` contracts a layer's factors inside the hooks; the others are ways to compare what was kept as factors.
    """
    samples, targets = batch(folder)
    model, manager = hooked(folder, capture_style="materialized" if mode == "dense" else "factorized")

    def run() -> float:
        with manager.collect():
            backward(model, targets)
            right = manager.get_gradient()
            backward(model, samples)
            left = manager.get_gradient()
        inner = left.similarity(right, reduce="all", mode="auto" if mode == "dense" else mode)
        # its loss is the batch's mean, which divides each sample's gradient by the size of its batch
        return float(inner.norm() * len(samples) * len(targets))

    return run


def step(mode: str, folder: Path) -> Run:
    """Training steps with its selection callback: of all candidates the worse half by <g_i, g_target> is dropped.

    Its cheapest way to the same: targets of eight steps from one pass, hooks on the linear layers of the blocks alone (the
    other layers then keep the gradients of what was dropped).
    """
    ids, targets = batch(folder)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    wanted = [target[None] for target in targets]  # it makes a target of every row that it runs
    callback = DataSelectionCallback(
        model, target="val_loader", val_loader=wanted, renormalize=True, val_targets_per_pass=STEPS,
        val_loss_fn=lambda own, rows: own(input_ids=rows, labels=rows, use_cache=False).loss,
        scoring_kwargs={"score_mode": mode},
        selection_kwargs={"threshold": 1 - 1 / CANDIDATES_OF_A_STEP, "threshold_mode": "bottom_fraction"},
    )  # fmt: skip
    manager = HookManager(
        model, callbacks=[callback], config=HookManagerConfig(linear_io=LAYERS), sample_hash_fields=["input_ids"]
    )

    def run() -> float:
        total = 0.0
        with manager.collect():
            for _ in range(STEPS):
                total += float(backward(model, ids))
                if len(callback.last_dropped) != len(ids) - len(ids) // CANDIDATES_OF_A_STEP:
                    raise ValueError(f"dropped {callback.last_dropped} of {len(ids)}")
                optimizer.step()
                optimizer.zero_grad()
        return total

    return run


if __name__ == "__main__":
    place = Path(sys.argv[1])
    grams = {f"gram/{mode}": partial(gram, mode, place) for mode in ("auto", "materialized", "dense")}
    steps = {f"step/{mode}": partial(step, mode, place) for mode in ("ghost", "materialized")}
    serve({"concat": partial(concat, place), **grams, **steps})

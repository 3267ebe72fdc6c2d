"""opacus 1.6.0 in its own environment: per-sample gradients by its hooks, not projected.

    python -m peers.opacus FOLDER       # speaks the protocol of server.py

Everything but the linear layers of the blocks is frozen.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch
from material import batch
from opacus import GradSampleModule
from server import Run, serve
from transformers import AutoModelForCausalLM


def gradients(folder: Path) -> Run:
    """One batch of per-sample gradients, kept until all layers have theirs."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).train()
    ids = batch(folder)[0]
    for name, weight in model.named_parameters():
        weight.requires_grad_(".layers." in name and weight.ndim == 2)
    model.enable_input_require_grads()
    wrapped = GradSampleModule(model, loss_reduction="mean")

    def run() -> float:
        loss = wrapped(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        for weight in wrapped.parameters():
            weight.grad = weight.grad_sample = None
        return float(loss.detach())

    return run


if __name__ == "__main__":
    serve({"gradients": partial(gradients, Path(sys.argv[1]))})

"""bergson 2.5.1 in its own environment: per-module p x p projections, as its in-memory collector makes them.

    python -m peers.bergson FOLDER                          # speaks the protocol of server.py
    python -m peers.bergson MODEL ROWS.npy SEED OUT.npy     # features of rows of equal length, for their accuracy

Model set-up (everything frozen but the input embedding), loss, hooks and index are bergson's own.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bergson.collector.collector import fwd_bwd_factory
from bergson.collector.in_memory_collector import InMemoryCollector
from bergson.config.config import IndexConfig
from bergson.gradients import GradientProcessor
from bergson.utils.worker_utils import setup_model_and_peft
from datasets import Dataset
from material import batch
from server import Run, serve

RANK = 16


def index_config(model: Path, seed: int | None = None) -> IndexConfig:
    return IndexConfig(
        run_path="unused",
        model=str(model),
        precision="fp32",
        projection_dim=RANK,
        projection_seed=seed,
        loss_reduction="mean",
    )


def collector_of(config: IndexConfig, ids: torch.Tensor) -> tuple[InMemoryCollector, torch.nn.Module]:
    model, _ = setup_model_and_peft(config)
    processor = GradientProcessor(projection_dim=RANK, projection_seed=config.projection_seed)
    data = Dataset.from_dict({"input_ids": ids.tolist()})
    return InMemoryCollector(model=model.base_model, data=data, cfg=config, processor=processor), model


def concat(folder: Path) -> Run:
    """One batch of features in its buffer."""
    ids, config = batch(folder)[0], index_config(folder / "model")
    collector, model = collector_of(config, ids)
    forward_backward, indices = fwd_bwd_factory(config), list(range(len(ids)))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[:, -1] = False

    def run() -> float:
        with collector.with_batch(mask):
            losses = forward_backward(model, ids, ids, {})
        collector.process_batch(indices, losses=losses)
        return float(losses.detach().mean())

    return run


def write_features(model_path: Path, ids: torch.Tensor, out: Path, *, seed: int) -> None:
    """Features [n, k] of token ids [n, t], float32."""
    config = index_config(model_path, seed)
    collector, model = collector_of(config, ids)
    forward_backward = fwd_bwd_factory(config)
    mask = torch.ones((1, ids.shape[1]), dtype=torch.bool)
    for row, line in enumerate(ids):
        with collector.with_batch(mask):
            losses = forward_backward(model, line[None], line[None], {})
        collector.process_batch([row], losses=losses)
    assert collector.builder is not None
    np.save(out, collector.builder.grad_buffer)


if __name__ == "__main__":
    place, *rest = sys.argv[1:]
    if rest:
        ids, seed, out = rest
        write_features(Path(place), torch.from_numpy(np.load(ids)), Path(out), seed=int(seed))
    else:
        serve({"concat": partial(concat, Path(place))})

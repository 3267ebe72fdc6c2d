"""Mosaic's StreamingDataset on its export: two epochs over the streams, every row that comes counted once."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from curate.config.strict_yaml import parse
from curate.models import tiny
from curate.trainers.comparison import Labelled, Observed, gradient, tokens_with_loss


def observe(folder: Path, model: Path, scratch: Path) -> Observed:
    """The gradient of two epochs; the rows of the export are those that `curate check-trainer` made."""
    library: Any = import_module("streaming")
    named = parse((folder / "streams.yaml").read_bytes(), "streams.yaml")[0]["streams"]
    streams = [library.Stream(local=str(folder / each["local"]), repeat=each["repeat"]) for each in named.values()]
    data = library.StreamingDataset(streams=streams, batch_size=1, shuffle=False, num_canonical_nodes=1)
    network, tokenizer = tiny.load(model)
    epochs = [[_labelled(row, tokenizer) for row in data] for _ in range(2)]
    known = sorted({row for epoch in epochs for row in epoch}, key=lambda row: [*row.ids])
    count = tokens_with_loss(known)
    found = [
        gradient(network, known, {place: epoch.count(row) for place, row in enumerate(known)}, count)
        for epoch in epochs
    ]
    return Observed(known, found)


def _labelled(row: dict[str, Any], tokenizer: Any) -> Labelled:
    ids = (*tokenizer(row["prompt"] + row["completion"])["input_ids"], tokenizer.eos_token_id)
    return Labelled(ids, ids)

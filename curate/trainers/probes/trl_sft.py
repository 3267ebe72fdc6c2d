"""TRL's SFTTrainer on its export: as it is, with `WeightedTrainer`, and that without padding."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from curate.models import tiny
from curate.trainers.comparison import Labelled, Observed, steps
from curate.trainers.probes.transformers_trainer import settings
from curate.trainers.weighted_trainer import WeightedTrainer


def plain(folder: Path, model: Path, scratch: Path) -> Observed:
    """SFTTrainer with the weight column in its training data."""
    return _observe(_library().SFTTrainer, folder, model, scratch)


def weighted(folder: Path, model: Path, scratch: Path, **changes: Any) -> Observed:
    """The same with the mixin."""
    return _observe(type("Weighted", (WeightedTrainer, _library().SFTTrainer), {}), folder, model, scratch, **changes)


def padding_free(folder: Path, model: Path, scratch: Path) -> Observed:
    """And without padding: the rows of a micro-batch in one, kept apart by position_ids."""
    return weighted(folder, model, scratch, padding_free=True, max_length=None)


def _observe(kind: Any, folder: Path, directory: Path, scratch: Path, **changes: Any) -> Observed:
    import datasets

    model, tokenizer = tiny.load(directory)
    data: Any = datasets.load_dataset(str(folder), split="train", cache_dir=str(scratch / "cache"))
    trainer = kind(
        model=model,
        args=_library().SFTConfig(**{**settings(scratch), "gradient_checkpointing": False, **changes}),
        train_dataset=data,
        processing_class=tokenizer,
    )
    rows = [Labelled(row["input_ids"], row["labels"]) for row in trainer.train_dataset]
    with steps() as found:
        trainer.train()
    return Observed(rows, found.of(model))


def _library() -> Any:
    return import_module("trl")

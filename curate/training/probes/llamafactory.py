"""LLaMA-Factory v1 on its export: its own data engine and trainer, two rows a micro-batch or one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.training.check import Labelled, Observed, steps


def observe(folder: Path, model: Path, scratch: Path) -> Observed:
    """Two steps with two rows in a micro-batch."""
    return _observe(folder, model, scratch, rows=2)


def single(folder: Path, model: Path, scratch: Path) -> Observed:
    """The same with one row in a micro-batch."""
    return _observe(folder, model, scratch, rows=1)


def _observe(folder: Path, directory: Path, scratch: Path, *, rows: int) -> Observed:
    from llamafactory.v1.accelerator.interface import DistributedInterface
    from llamafactory.v1.config import get_args
    from llamafactory.v1.core.data_engine import DataEngine
    from llamafactory.v1.core.model_engine import ModelEngine
    from llamafactory.v1.trainers.sft_trainer import SFTTrainer
    from omegaconf import OmegaConf

    info: Any = OmegaConf.load(folder / "dataset_info.yaml")
    settings: dict[str, Any] = {
        "model": str(directory), "template": "chatml", "train_dataset": str(folder / info.curate.path),
        "output_dir": str(scratch / "out"), "micro_batch_size": rows, "global_batch_size": 8, "cutoff_len": 512,
        "learning_rate": 0.0, "max_steps": 2, "max_grad_norm": 1e9, "bf16": False, "batching_workers": 0,
        "enable_activation_checkpointing": False,
    }  # fmt: skip
    model_args, data_args, training_args, _ = get_args(settings)
    DistributedInterface(training_args.dist_config)
    data = DataEngine(data_args.train_dataset)
    engine = ModelEngine(model_args, is_train=True)
    engine.model.float()
    trainer = SFTTrainer(args=training_args, model=engine.model, renderer=engine.renderer, train_dataset=data)
    inputs = engine.renderer.process_samples([data[place] for place in range(len(data))])
    with steps() as found:
        trainer.fit()
    return Observed([Labelled(row["input_ids"], row["labels"]) for row in inputs], found.of(engine.model))

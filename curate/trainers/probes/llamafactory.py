"""LLaMA-Factory v1 on its export: its own data engine and trainer, two rows a micro-batch or one."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from curate.config.strict_yaml import parse
from curate.trainers.comparison import Labelled, Observed, steps


def observe(folder: Path, model: Path, scratch: Path) -> Observed:
    """Two steps with two rows in a micro-batch."""
    return _observe(folder, model, scratch, rows=2)


def single(folder: Path, model: Path, scratch: Path) -> Observed:
    """The same with one row in a micro-batch."""
    return _observe(folder, model, scratch, rows=1)


def _observe(folder: Path, directory: Path, scratch: Path, *, rows: int) -> Observed:
    v1 = "llamafactory.v1"
    accelerator, config = _module(f"{v1}.accelerator.interface"), _module(f"{v1}.config")
    data_engine, model_engine = _module(f"{v1}.core.data_engine"), _module(f"{v1}.core.model_engine")
    sft_trainer = _module(f"{v1}.trainers.sft_trainer")
    info = parse((folder / "dataset_info.yaml").read_bytes(), "dataset_info.yaml")[0]
    settings: dict[str, Any] = {
        "model": str(directory), "template": "chatml", "train_dataset": str(folder / info["curate"]["path"]),
        "output_dir": str(scratch / "out"), "micro_batch_size": rows, "global_batch_size": 8, "cutoff_len": 512,
        "learning_rate": 0.0, "max_steps": 2, "max_grad_norm": 1e9, "bf16": False, "batching_workers": 0,
        "enable_activation_checkpointing": False,
    }  # fmt: skip
    model_args, data_args, training_args, _ = config.get_args(settings)
    accelerator.DistributedInterface(training_args.dist_config)
    data = data_engine.DataEngine(data_args.train_dataset)
    engine = model_engine.ModelEngine(model_args, is_train=True)
    engine.model.float()
    trainer = sft_trainer.SFTTrainer(
        args=training_args, model=engine.model, renderer=engine.renderer, train_dataset=data
    )
    inputs = engine.renderer.process_samples([data[place] for place in range(len(data))])
    with steps() as found:
        trainer.fit()
    return Observed([Labelled(row["input_ids"], row["labels"]) for row in inputs], found.of(engine.model))


def _module(name: str) -> Any:
    return import_module(name)

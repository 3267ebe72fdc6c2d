"""ms-swift on its export: `swift sft` with the arguments that the export names."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from curate.config.strict_yaml import parse
from curate.trainers.comparison import Labelled, Observed, steps


def observe(folder: Path, model: Path, scratch: Path) -> Observed:
    """Two steps of full fine-tuning."""
    library: Any = import_module("swift.pipelines.train.sft")
    named = parse((folder / "swift.yaml").read_bytes(), "swift.yaml")[0]
    options: dict[str, Any] = {
        "model": model, "model_type": "qwen2", "template": "chatml", "tuner_type": "full", "torch_dtype": "float32",
        "loss_scale": named["loss_scale"], "is_binary_loss_scale": str(named["is_binary_loss_scale"]).lower(),
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 2, "learning_rate": 0,
        "optim": "sgd", "max_grad_norm": 0, "use_cpu": "true", "save_strategy": "no", "report_to": "none",
        "train_dataloader_shuffle": "false", "dataset_shuffle": "false", "split_dataset_ratio": 0, "max_length": 512,
        "output_dir": scratch / "out", "load_from_cache_file": "false", "dataloader_num_workers": 0,
        "gradient_checkpointing": "false", "bf16": "false",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    pipeline = library.SwiftSft([*words, "--dataset", *(str(folder / path) for path in named["dataset"])])
    data = pipeline._prepare_dataset()[0]
    rows = [Labelled(row["input_ids"], row["labels"]) for row in (data[place] for place in range(len(data)))]
    with steps() as found:
        pipeline.run()
    return Observed(rows, found.of(pipeline.model))

"""Filter-then-Weight in TRL's SFTTrainer: `python select_with_trl.py MODEL ROWS OUT`, in the environment of TRL.

ROWS is a JSON file: tokenised rows of a pool and of a target, the settings of the method, and a learning rate of plain descent.
OUT gets the model after two steps on four rows each, one after another.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from curate.trainers.selecting_trainer import SelectingTrainer


class Selecting(SelectingTrainer, SFTTrainer):
    """Three lines: this one, `select`, `train`."""


def main() -> None:
    directory, given, out = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), sys.argv[3]
    torch.set_num_threads(1)
    causal = AutoModelForCausalLM.from_pretrained(directory)
    args = SFTConfig(
        output_dir=out, max_steps=2, per_device_train_batch_size=4, max_grad_norm=0.0, report_to=[], use_cpu=True,
        save_strategy="no", disable_tqdm=True, train_sampling_strategy="sequential", gradient_checkpointing=False, bf16=False,
    )  # fmt: skip
    optimizer = torch.optim.SGD(causal.parameters(), lr=given["rate"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    trainer = Selecting(
        model=causal, args=args, train_dataset=Dataset.from_list(given["pool"]), optimizers=(optimizer, schedule)
    )
    trainer.select(given["target"], method=given["method"], batch_size=len(given["target"]))
    trainer.train()
    print(json.dumps({"chosen": int((trainer.selector(causal).chosen > 0).sum())}))
    causal.save_pretrained(out)


if __name__ == "__main__":
    main()

"""A model of two layers, rows with weights, and gradients of real trainers and of an obvious loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

VOCABULARY = 41


def model(seed: int = 0) -> Any:
    """A Llama without dropout."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(config, attn_implementation="eager")


def rows(count: int = 8, *, tokens: bool = False, prompt: int = 1) -> list[dict[str, Any]]:
    """Rows of different lengths and weights; no loss on the first `prompt` tokens."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for row in range(count):
        length = 4 + (5 * row) % 9
        ids = torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()
        weights = (torch.rand(length, generator=generator) * 2).tolist()
        labels = [-100] * prompt + ids[prompt:]
        made.append(
            {"input_ids": ids, "labels": labels, "attention_mask": [1] * length, "weight": float(row % 4) * 0.7}
        )
        if tokens:
            made[-1]["token_weight"] = weights
    return made


def expected(data: list[dict[str, Any]], *, over: int | None = None) -> torch.Tensor:
    """Gradient of Σ f l / N, row by row and token by token, without padding; N counts the tokens of `over` rows."""
    network = model()
    count = sum(label != -100 for row in data[:over] for label in row["labels"][1:])
    for row in data:
        logits = network(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        for place in range(1, len(row["input_ids"])):
            if row["labels"][place] == -100:
                continue
            factor = row["token_weight"][place] if "token_weight" in row else row["weight"]
            loss = functional.cross_entropy(logits[place - 1], torch.tensor(row["labels"][place]))
            (factor * loss / count).backward(retain_graph=True)
    return gradient(network)


def gradient(network: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for _, parameter in sorted(network.named_parameters())]).clone()


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings of a trainer that takes steps of nothing, in order, on the CPU."""
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1,
        "learning_rate": 0.0, "optim": "sgd", "max_grad_norm": 0.0, "use_cpu": True, "report_to": "none",
        "save_strategy": "no", "disable_tqdm": True, "train_sampling_strategy": "sequential", "logging_strategy": "no",
        **changes,
    }  # fmt: skip


def taken(trainer: Any) -> list[torch.Tensor]:
    """Train, and keep the gradient before every step."""
    from transformers import TrainerCallback

    found: list[torch.Tensor] = []

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *arguments: Any, model: Any = None, **more: Any) -> None:
            found.append(gradient(getattr(model, "module", model)))

    trainer.add_callback(Keep())
    trainer.train()
    return found


def padded(features: list[dict[str, Any]], *, left: bool = False) -> dict[str, torch.Tensor]:
    """The obvious collator."""
    width = max(len(row["input_ids"]) for row in features)
    fill = {"input_ids": 0, "labels": -100, "attention_mask": 0}
    out = {}
    for key, value in fill.items():
        pads = [[value] * (width - len(row[key])) for row in features]
        lines = [pad + row[key] if left else row[key] + pad for pad, row in zip(pads, features, strict=True)]
        out[key] = torch.tensor(lines)
    if left:
        out["position_ids"] = (out["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return out

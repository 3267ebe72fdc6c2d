"""What TRL's own SFTTrainer makes of an exported dataset: the ids and the masks that the run learned from, row for row."""

from __future__ import annotations

import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from curate import config
from curate.engine import flow
from curate.exports.export import export
from curate.models import tiny
from curate.runs import tokens
from curate.runs.job import open_job
from tests.conversations import battery

WORDS = ["river", "stone", "market", "garden", "window", "letter", "engine", "paper", "silver", "morning", "teacher"]
LONG = 4096
"""Tokens, which are bytes here: more than any row has."""


def sentence(rng: random.Random, length: int = 6) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length)).capitalize() + "."


def texts(rng: random.Random, row: int) -> dict[str, Any]:
    return {"text": f" {sentence(rng)} \n" if row % 7 == 0 else sentence(rng)}


def pairs(rng: random.Random, row: int) -> dict[str, Any]:
    blank = ("\n", " ", "")[row % 3]
    return {"prompt": sentence(rng) + blank, "completion": ("hello wor", "ld. ")[row % 2] + sentence(rng)}


def dialogues(rng: random.Random, row: int) -> dict[str, Any]:
    asked = [{"role": "system", "content": "Be brief."}, battery.user(sentence(rng))]
    return {"prompt": asked[row % 2 :], "completion": [battery.assistant(sentence(rng))]}


def tool_use(rng: random.Random, row: int) -> dict[str, Any]:
    """In the shape of public tool-use sets: tools in a column, arguments that differ row by row, parallel calls."""
    city, song = rng.choice(WORDS), rng.choice(WORDS)
    calls = [
        [battery.call("f", {"city": city, "unit": "celsius"})],
        [battery.call("g", {"title": song, "volume": row}), battery.call("f", {"city": city}, 2)],
        [battery.call("f", {})],
    ][row % 3]
    results = [battery.result(json.dumps({"ok": city}), each["function"]["name"], n) for n, each in enumerate(calls, 1)]
    turns = [
        battery.user(sentence(rng)),
        battery.assistant("", tool_calls=calls),
        *results,
        battery.assistant(sentence(rng)),
    ]
    return {"messages": turns, "tools": battery.TOOLS[: 1 + row % 2]}


def reasoning(rng: random.Random, row: int) -> dict[str, Any]:
    """In the shape of public reasoning sets: thoughts in the content, or beside it."""
    thought, answer = sentence(rng, 12), sentence(rng)
    said = battery.assistant(answer, reasoning_content=thought)
    inside = battery.assistant(f"<think>\n{thought}\n</think>\n\n{answer}")
    return {"messages": [battery.user(sentence(rng)), (said, inside)[row % 2]]}


def shared(rng: random.Random, row: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": sentence(rng)}, {"from": "gpt", "value": sentence(rng)}]
    return {"conversations": turns * (1 + row % 2)}


CASES = {
    "text": (texts, "qwen3_8"),
    "prompt and completion": (pairs, "qwen3_8"),
    "prompt and completion of messages": (dialogues, "qwen3_8"),
    "tools": (tool_use, "qwen3_8"),
    "tools, another template": (tool_use, "qwen2_5"),
    "reasoning": (reasoning, "qwen3_8"),
    "ShareGPT": (shared, "qwen3_instruct_2507"),
}


def finished(root: Path, make: Any, template: str) -> Path:
    """A run over forty rows of a kind, by gradients of a tiny model with a template that people have."""
    model = tiny.write(root / "model")
    shape = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**shape, "max_position_embeddings": LONG}))
    source = resources.files("trl") / "chat_templates" / f"{template}.jinja"
    (root / "model" / "chat_template.jinja").write_text(source.read_text())
    for name, seed, rows in (("pool", 0, 40), ("target", 1, 6)):
        rng = random.Random(seed)
        (root / f"{name}.jsonl").write_text("".join(json.dumps(make(rng, row)) + "\n" for row in range(rows)))
    content = {
        "pool": {"path": str(root / "pool.jsonl"), "shard_rows": 16},
        "target": {"path": str(root / "target.jsonl")},
        "model": {"name": str(model), "max_tokens": LONG, "long_rows": "cut"},
        "features": {"name": "losses"},
        "method": {"name": "perplexity"},
        "cluster": {"workers": 0},
    }
    return flow.run(config.validate(content), root / "run")


def trainer(root: Path, run: Path, *, steps: int) -> Any:
    """SFTTrainer on the export."""
    import datasets
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    folder = export(run, "trl")
    rows = datasets.load_dataset(
        "parquet", data_files=str(folder / "data" / "*.parquet"), split="train", cache_dir=str(root / "cache")
    )
    model, words = tiny.load(root / "model")
    chats = "messages" in rows.column_names
    arguments = SFTConfig(
        output_dir=str(root / "out"), max_length=LONG, assistant_only_loss=chats, max_steps=steps, report_to=[],
        use_cpu=True, bf16=False, per_device_train_batch_size=2, save_strategy="no", logging_steps=1, disable_tqdm=True,
        gradient_checkpointing=False,
    )  # fmt: skip
    return SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=words)


@pytest.mark.parametrize("case", CASES)
def test_sfttrainer_sees_the_ids_and_the_mask_of_the_run(tmp_path, case):
    make, template = CASES[case]
    run = finished(tmp_path, make, template)
    job = open_job(str(run))
    ours = [row for shard in range(len(job.shards)) for row in tokens.stored(job, shard).rows()]
    theirs = trainer(tmp_path, run, steps=1).train_dataset
    assert len(ours) == len(theirs) == 40
    for row, other in zip(ours, theirs, strict=True):
        assert row is not None
        assert row.ids == other["input_ids"]
        labels = [token if loss else -100 for token, loss in zip(row.ids, row.loss, strict=True)]
        assert labels[1:] == other["labels"][1:]  # nothing predicts the first token


@pytest.mark.parametrize("case", ["tools", "reasoning"])
def test_ten_steps_of_trl_on_public_shapes(tmp_path, case):
    make, template = CASES[case]
    found = trainer(tmp_path, finished(tmp_path, make, template), steps=10)
    found.train()
    losses = [line["loss"] for line in found.state.log_history if "loss" in line]
    assert len(losses) == 10
    assert all(0 < loss < 20 for loss in losses)

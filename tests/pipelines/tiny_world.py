"""A whole curation problem of a second: a pool of two kinds of sentence, a target of one, and models of two layers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from curate import config
from curate.engine import flow
from curate.methods.registry import METHODS
from curate.reports import frames
from curate.stages import loop_problem
from curate.testing.sentences import animal, numeral, texts

__all__ = ["World", "animal", "make", "numeral", "texts"]

CHAT = (
    "{% for turn in messages %}<|{{ turn.role }}|>{{ turn.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
UNPROMISED = ("logs", "published", "report.html", ".lock")
"""What lies outside the promise of byte identity."""


def own(method: str) -> dict[str, Any]:
    """A method's section, with the kind of feature that is its own."""
    kind = METHODS[method].features
    other = {"features": {"name": kind}} if kind not in ("", "gradients") else {}
    return {"method": {"name": method}, **other}


def write_model(directory: Path, kind: str, *, vocab: int = 320, weights: bool = True) -> Path:
    """A tiny checkpoint as a user has it on disk: config, tokenizer and, unless told otherwise, weights."""
    write_tokenizer(directory, vocab)
    config = AutoConfig.for_model(kind, vocab_size=vocab, bos_token_id=0, eos_token_id=1, **SHAPES[kind])
    config.save_pretrained(directory)
    if weights:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def write_tokenizer(directory: Path, vocab: int = 320) -> Path:
    """A byte-level BPE of exactly `vocab` tokens with a chat template."""
    specials = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts(200), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT
    fast.save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class World:
    """Files shared by tests, which must not change them.

    Attributes:
        root: directory of everything.
        model: a Llama with weights.
        pool: two Parquet files of 30 rows with an `id` column.
        target: six rows about animals.
    """

    root: Path
    model: Path
    pool: Path
    target: Path

    def settings(self, **changes: Any) -> dict[str, Any]:
        """A pipeline as plain data; a change that is a dict is merged into its section, None removes a section.

        A method, and features of a kind that is named, replace what was there.
        """
        content: dict[str, Any] = {
            "pool": {"path": str(self.pool / "*.parquet"), "shard_rows": 20},
            "target": {"path": str(self.target)},
            "model": {"name": str(self.model), "max_tokens": 48},
            "features": {"projection": {"dim": 64}},
            "method": {"name": "bds"},
            "cluster": {"workers": 0},
        }
        for section, change in changes.items():
            merges = isinstance(change, dict) and isinstance(content.get(section), dict) and section != "method"
            replaces = section == "features" and "name" in (change or {})
            content[section] = {**content[section], **change} if merges and not replaces else change
        return {section: value for section, value in content.items() if value is not None}

    def file(self, path: Path, **changes: Any) -> Path:
        """The same as a pipeline file."""
        path.write_text(yaml.safe_dump(self.settings(**changes), sort_keys=False))
        return path


def make(root: Path) -> World:
    """Write the shared files."""
    pool = root / "pool"
    pool.mkdir()
    lines = texts(60)
    for part in range(2):
        rows = range(30 * part, 30 * part + 30)
        table = pa.table({"id": list(rows), "text": [lines[row] for row in rows]})
        pq.write_table(table, pool / f"pool-{part}.parquet")
    target = root / "target.parquet"
    pq.write_table(pa.table({"text": [animal(n) for n in range(1000, 1012, 2)]}), target)
    return World(root, write_model(root / "llama", "llama"), pool, target)


class Killed(BaseException):
    """What a kill leaves behind: nothing is cleaned up."""


def always_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training's state after every step, however long it takes."""
    monkeypatch.setattr(loop_problem, "KEEP_SECONDS", -1.0)
    monkeypatch.setattr(loop_problem, "KEEP_SHARE", 1e9)


def run_killed(
    settings: config.Pipeline, run: Path, monkeypatch: pytest.MonkeyPatch, *, after: int, every: int = 1
) -> None:
    """Run a pipeline whose training is killed after so many steps; its state is kept after the first, and every so many."""
    always_keep(monkeypatch)
    keep, steps = loop_problem.StoredLoop.keep, [0]

    def killing(self: loop_problem.StoredLoop, state: Any) -> None:
        if steps[0] % every == 0:
            keep(self, state)
        steps[0] += 1
        if steps[0] == after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(loop_problem.StoredLoop, "keep", killing)
        with pytest.raises(Killed):
            flow.run(settings, run)


def written(run: Path) -> pa.Table:
    """The whole dataset of a run, in order."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((run / "dataset" / "data").glob("*.parquet"))])


def dropped(run: Path) -> list[str]:
    """Reasons of all rows set apart, in order."""
    parts = sorted((run / "dropped").glob("*.parquet"))
    return [reason for part in parts for reason in pq.read_table(part)["reason"].to_pylist()]


def manifest(run: Path) -> dict[str, Any]:
    """The manifest of a finished run."""
    return json.loads((run / "manifest.json").read_bytes())


def weights(run: Path) -> np.ndarray:
    """The weights that the method gave, in pool order."""
    return frames.weights(run)["weight"].to_numpy()


def promised(run: Path) -> dict[str, str]:
    """Path → sha256 of every file whose bytes are promised."""
    files = [path for path in run.rglob("*") if path.is_file() and path.relative_to(run).parts[0] not in UNPROMISED]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint."""
    return PreTrainedTokenizerFast.from_pretrained(directory)

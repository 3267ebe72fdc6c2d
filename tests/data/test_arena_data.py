"""The arena's three problems are what data/README.md says they are, and its pipelines read them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import DATA, articles, grams, hashes, make, maker

PIPELINES = DATA.parent / "pipelines" / "arena"
PROBLEMS = ("mixed", "damaged", "questions")
SIX = {"news", "encyclopedia", "mathematics", "code", "law", "medicine"}
Splits = dict[str, pl.DataFrame]


@pytest.fixture(scope="session")
def arena(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("arena", packages, tmp_path_factory.mktemp("sample")) / "arena"


@pytest.fixture(scope="session")
def problems(arena: Path) -> dict[str, Splits]:
    return {name: read(arena / name) for name in PROBLEMS}


def read(folder: Path) -> Splits:
    splits = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("target", "evaluation")}
    return {**splits, "pool": pl.read_parquet(folder / "pool" / "*.parquet")}


def pipeline(name: str) -> dict:
    return yaml.safe_load((PIPELINES / f"{name}.yaml").read_text())


def text(rows: pl.DataFrame) -> list[str]:
    return rows["text"].to_list() if "text" in rows.columns else (rows["prompt"] + rows["completion"]).to_list()


def selected(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that the pipeline's label calls good."""
    return rows.filter(**pipeline(name)["evaluation"]["label"])


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_splits_share_no_article(problems: dict[str, Splits], name: str) -> None:
    for one, other in combinations(problems[name].values(), 2):
        assert not articles(one) & articles(other)


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_good_row_is_a_near_duplicate_of_a_held_out_row(problems: dict[str, Splits], name: str) -> None:
    """Oracle: the 5-grams of every pair of good rows; the smaller of two never lies by half in the other."""
    found = [[grams(row) for row in text(selected(name, rows))] for rows in problems[name].values()]
    for one, other in combinations(found, 2):
        assert all(2 * len(a & b) <= min(len(a), len(b)) for a in one for b in other)


@pytest.mark.parametrize("name", PROBLEMS)
def test_no_row_occurs_twice(problems: dict[str, Splits], name: str) -> None:
    splits = problems[name]
    ids = pl.concat([rows["id"] for rows in splits.values()])
    texts = [row for rows in splits.values() for row in text(rows)]
    assert ids.n_unique() == len(ids)
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("name", PROBLEMS)
def test_target_and_evaluation_are_good_rows_only(problems: dict[str, Splits], name: str) -> None:
    for split, count in (("target", 64), ("evaluation", 256)):
        rows = problems[name][split]
        assert len(selected(name, rows)) == len(rows) == count


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_pipeline_keeps_as_many_rows_as_are_good(problems: dict[str, Splits], name: str) -> None:
    pool, config = problems[name]["pool"], pipeline(name)
    share = len(selected(name, pool)) / len(pool)
    assert config["evaluation"]["keep"] == config["output"]["keep"] == pytest.approx(share, abs=0.01)
    assert len(selected(name, pool)) >= 400


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_pipeline_reads_what_is_made(arena: Path, problems: dict[str, Splits], name: str) -> None:
    config = pipeline(name)
    place = f"data/sample/arena/{name}"
    sources = {"pool": config["pool"], "target": config["target"], "evaluation": config["evaluation"]["data"]}
    paths = {"pool": f"{place}/pool/*.parquet"} | {key: f"{place}/{key}.parquet" for key in ("target", "evaluation")}
    assert {key: source["path"] for key, source in sources.items()} == paths
    assert (arena / Path(config["model"]["name"]).relative_to("data/sample/arena") / "config.json").is_file()
    for split, source in sources.items():
        named = {source[key] for key in ("text", "prompt", "completion") if key in source}
        assert named <= set(problems[name][split].columns)
    assert set(config["report"]["columns"]) <= set(problems[name]["pool"].columns)


def test_the_arena_file_names_the_three_problems() -> None:
    assert pipeline("small")["problems"] == {name: f"{name}.yaml" for name in PROBLEMS}


def test_mixed_is_six_clean_domains_in_equal_parts(problems: dict[str, Splits]) -> None:
    pool = problems["mixed"]["pool"]
    assert Counter(pool["domain"]) == dict.fromkeys(SIX, 500)
    assert set(pool["kind"]) == {"clean"}


def test_damaged_is_news_half_of_it_spoiled(problems: dict[str, Splits]) -> None:
    pool = problems["damaged"]["pool"]
    assert set(pool["domain"]) == {"news"}
    assert Counter(pool["kind"]) == {"clean": 1200, "shuffled": 480, "random": 240, "boilerplate": 240, "rot13": 240}


def test_clean_answers_are_the_source_s_and_wrong_ones_are_not(problems: dict[str, Splits], packages: Path) -> None:
    """Oracle: the sources, read again; swapped completions are right ones, of other questions."""
    sources = maker("pairs").SOURCES
    right: dict[str, set[str]] = {}
    for read_source in sources.values():
        for pairs in read_source(packages).values():
            for question, answer in pairs:
                right.setdefault(" ".join(question.split()), set()).add(" ".join(answer.split()))
    answers = set().union(*right.values())
    for rows in problems["questions"].values():
        for row in rows.to_dicts():
            given = right[row["prompt"].strip()]
            assert (row["completion"] in given) == (row["kind"] == "clean"), row
            assert (row["completion"] in answers) == (row["kind"] != "unsafe"), row


def test_every_problem_s_rows_are_short_enough_for_the_proxy(
    arena: Path, problems: dict[str, Splits], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(arena / "proxy"))
    tokenizer = AutoTokenizer.from_pretrained(arena / "proxy")
    assert len(tokenizer) == model.config.vocab_size == 1024
    assert 0.8e6 < model.num_parameters() < 1e6
    for splits in problems.values():
        texts = text(splits["evaluation"])
        ids = tokenizer(texts)["input_ids"]
        assert tokenizer.batch_decode(ids) == texts
        assert sum(map(len, ids)) > 40 * len(ids)
        assert max(map(len, ids)) <= 256


def test_made_twice_is_byte_identical_and_a_seed_draws_others(packages: Path, tmp_path: Path) -> None:
    made = [make("arena", packages, tmp_path / name, "--rows", "120") for name in ("one", "two")]
    assert hashes(made[0]) == hashes(made[1])
    other = make("arena", packages, tmp_path / "other", "--rows", "120", "--seed", "1")
    for name in PROBLEMS:
        first, second = (set(text(read(home / "arena" / name)["pool"])) for home in (made[0], other))
        assert len(first & second) < 60


def test_asking_for_more_pairs_than_there_are_says_so(packages: Path) -> None:
    pairs = maker("pairs")
    with pytest.raises(SystemExit, match="ask for fewer"):
        pairs.split_pairs(packages, replace(pairs.QUESTIONS, rows=40_000), 0)


@given(st.text())
def test_rot13_keeps_the_length_and_twice_is_nothing(sample: str) -> None:
    rot13 = maker("corruptions").rot13
    once = rot13(sample, random.Random(0))
    assert len(once) == len(sample)
    assert rot13(once, random.Random(0)) == sample
    assert not any(a == b for a, b in zip(once, sample, strict=True) if a.isascii() and a.isalpha())

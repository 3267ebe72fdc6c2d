"""Secrets: each kind is found wherever it may hide, nothing is sent, and ordinary text passes."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import PublishError
from curate.hub.secrets import KINDS, Scan
from tests.hub.conftest import TOKEN, Publish, made, published, texts
from tests.hub.server import Hub

LETTERS = string.ascii_letters + string.digits
MIXED = (LETTERS * 2)[7:97]
BODY = "\n".join(f"MIIEvQ{MIXED[n : n + 58]}" for n in range(4))
SECRETS = {
    "a Hugging Face token": "hf_" + MIXED[:34],
    "an AWS access key": "AKIA" + "Q3EGRZ7WXK2LMN4P",
    "an AWS secret key": f'aws_secret_access_key = "{MIXED[:40]}"',
    "a private key": f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----",
    "a GitHub token": "ghp_" + MIXED[:36],
    "a GitLab token": "glpat-" + MIXED[:20],
    "a Slack token": "xoxb-123456789012-" + MIXED[:24],
    "a Google API key": "AIza" + MIXED[:35],
    "an API key of OpenAI or Anthropic": "sk-proj-" + MIXED[:48],
    "a live Stripe key": "sk_live_" + MIXED[:24],
}
HARMLESS = (
    "AKIAIOSFODNN7EXAMPLE is the key of AWS's own manual",
    "hf_hub_download(repo, name); hf_transfer; hf_" + "x" * 40,
    'if line == "-----BEGIN PRIVATE KEY-----": raise ValueError("a key")',
    "-----BEGIN CERTIFICATE-----\n" + BODY,
    "ask-me-anything-about-task-scheduling-in-kubernetes and sk-learn",
    "AKIA is four letters; ghp_short; xoxb-1; AIzaShort",
    "a sha256: " + "0123456789abcdef" * 4,
)


def found(path: Path) -> list[tuple[str, str]]:
    return [*Scan().file(path, "dataset/x")]


def write(path: Path, column: pa.Array, **others: pa.Array) -> Path:
    pq.write_table(pa.table({"text": column, **others}), path, row_group_size=3)
    return path


def test_every_kind_has_an_example_here():
    assert SECRETS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_in_a_row_and_named_by_its_place(kind: str, tmp_path: Path):
    column = pa.array(["before", None, "", f"so it says:\n{SECRETS[kind]}\nand so on", "after"])
    assert found(write(tmp_path / "x.parquet", column)) == [("dataset/x, row 3, column 'text'", kind)]


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_found_in_a_text_file_and_named_by_its_line(kind: str, tmp_path: Path):
    (tmp_path / "README.md").write_text(f"# Card\n\nfirst {SECRETS[kind]} last\n")
    assert found(tmp_path / "README.md") == [("dataset/x, line 3", kind)]


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_text_passes(text: str, tmp_path: Path):
    assert found(write(tmp_path / "x.parquet", pa.array([text]))) == []
    assert [*Scan().text(text)] == []


SECRET = SECRETS["a Hugging Face token"]
SHAPES = {
    "large": pa.array([SECRET], pa.large_string()),
    "binary": pa.array([SECRET.encode()], pa.binary()),
    "view": pa.array([SECRET], pa.string_view()),
    "dictionary": pa.array([SECRET]).dictionary_encode(),
    "list": pa.array([["a", SECRET]]),
    "struct": pa.array([{"role": "user", "content": SECRET}]),
    "messages": pa.array([[{"role": "user", "content": "hello"}, {"role": "assistant", "content": SECRET}]]),
    "map": pa.array([[("key", SECRET)]], pa.map_(pa.string(), pa.string())),
    "key of a map": pa.array([[(SECRET, "value")]], pa.map_(pa.string(), pa.string())),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_secret_is_found_in_a_column_of_any_shape(shape: str, tmp_path: Path):
    path = write(tmp_path / "x.parquet", pa.array(["plain"]), other=SHAPES[shape])
    assert found(path) == [("dataset/x, row 0, column 'other'", "a Hugging Face token")]


def test_a_secret_is_found_in_names_and_metadata(tmp_path: Path):
    table = pa.table({SECRET: [1]})
    pq.write_table(table, tmp_path / "name.parquet")
    pq.write_table(pa.table({"text": ["a"]}).replace_schema_metadata({"note": SECRET}), tmp_path / "note.parquet")
    for name in ("name", "note"):
        assert found(tmp_path / f"{name}.parquet") == [("dataset/x, in its schema", "a Hugging Face token")]


def test_rows_are_counted_through_batches(tmp_path: Path):
    column = pa.array([*(["plain"] * 2500), SECRET])
    assert found(write(tmp_path / "x.parquet", column)) == [
        ("dataset/x, row 2500, column 'text'", "a Hugging Face token")
    ]


def test_the_token_in_use_is_found_whatever_its_shape(tmp_path: Path):
    token = "a.b+c|d(e"
    path = write(tmp_path / "x.parquet", pa.array([f"secret: {token}!", "aXb+c|d(e"]))
    assert [*Scan([token]).file(path, "x")] == [("x, row 0, column 'text'", "the token in use")]


@given(st.text(max_size=60), st.sampled_from(sorted(SECRETS)), st.text(max_size=60))
def test_the_fast_engine_sees_whatever_the_exact_one_sees(before: str, kind: str, after: str):
    """RE2 over a column decides whether rows are looked at at all; Python's engine then names them."""
    text = before + SECRETS[kind] + after
    pattern = "|".join(f"(?:{own})" for own in KINDS.values())
    fast = pc.match_substring_regex(pa.array([text]), pattern)[0].as_py()  # pyright: ignore[reportAttributeAccessIssue]
    assert fast or not [*Scan().text(text)]
    assert all(re.compile(own) for own in KINDS.values())


def test_a_dataset_with_a_secret_is_not_published(hub: Hub, put: Publish, tmp_path: Path):
    rows = texts(50)
    rows[33] = f"my key is {SECRET}, keep it"
    run = made(tmp_path / "leaky", rows)
    for dry in (True, False):
        with pytest.raises(PublishError) as refused:
            put(root=run, dry_run=dry)
        part = r"dataset/data/train-00001-of-0000\d\.parquet, row 13, column 'text'"
        assert re.search(rf"a Hugging Face token in {part}", str(refused.value))
        assert SECRET not in str(refused.value)
    assert hub.seen == []


def test_the_canary_in_a_row_stops_it_too(hub: Hub, put: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    odd = "not of the usual shape"
    monkeypatch.setenv("HF_TOKEN", odd)
    run = made(tmp_path / "leaky", [*texts(20), f"is it {odd}?"])
    with pytest.raises(PublishError, match="the token in use in dataset/data/"):
        put(root=run)
    assert hub.seen == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    put(root=run)
    assert published(hub)

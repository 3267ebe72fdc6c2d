"""Every export of the registry under the battery of `curate.testing`, and what each trainer finds in its own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, CurateError, IntegrityError
from curate.exports import buckets
from curate.exports.base import turns, write_lines
from curate.exports.registry import EXPORTERS, find
from curate.testing import ExportContract
from tests.exports import export_world
from tests.exports.export_world import KINDS, Dataset

WEIGHS_ROWS = ["text", "pairs", "messages"]


@pytest.fixture(scope="module", params=KINDS)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return export_world.make(tmp_path_factory.mktemp("dataset"), request.param)


def only(dataset: Dataset, *kinds: str) -> None:
    if dataset.kind not in kinds:
        pytest.skip(f"speaks of {', '.join(kinds)}")


def plain(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if value is not None}


def words(row: dict[str, Any], dataset: Dataset) -> str:
    """What the assistant says in a row of the dataset."""
    column = [*dataset.layout.fields.values()][-1]
    return row[column][-1]["content"] if column == "chat" else row[column]


COUNTS = {
    "mosaic": lambda _, folder: sum(len(export_world.mds(path.parent)) for path in folder.rglob("index.json")),
    "megatron": lambda _, folder: sum(
        len(export_world.indexed(path.with_suffix(""))) for path in folder.rglob("*.idx")
    ),
}
"""Readers of what is neither Parquet nor JSON Lines."""

for entry in EXPORTERS.own.values():
    name = f"Test_{entry.name.replace('-', '_')}"
    globals()[name] = type(
        name, (ExportContract,), {"entry": entry, **({"count": COUNTS[entry.name]} if entry.name in COUNTS else {})}
    )


def test_hf_is_the_dataset_as_it_is(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("hf", tmp_path)
    assert export_world.parquet(tmp_path) == dataset.rows
    shutil.rmtree(tmp_path / "data")
    assert all(path.exists() for path in dataset.parts)


def test_jsonl_has_every_column_of_every_row(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("jsonl", tmp_path)
    assert export_world.lines(tmp_path) == dataset.rows


def test_trl_is_given_its_own_column_names_and_the_weight(dataset: Dataset, tmp_path: Path) -> None:
    only(dataset, *WEIGHS_ROWS, "resampled")
    dataset.export("trl", tmp_path)
    found, fields = export_world.parquet(tmp_path), dataset.layout.fields
    assert [[row[key] for key in fields] for row in found] == [
        [row[name] for name in fields.values()] for row in dataset.rows
    ]
    weighs = dataset.kind != "resampled"
    assert all(set(row) == {*fields, *(["weight"] * weighs)} for row in found)
    if weighs:
        assert [row["weight"] for row in found] == dataset.weights.tolist()


def test_trl_and_axolotl_take_no_loss_on_tokens_that_were_not_chosen(dataset: Dataset, tmp_path: Path) -> None:
    only(dataset, "tokens")
    expected = []
    for table in dataset.tables:
        for tokens, row in zip(dataset.tokenizer(table), table.to_pylist(), strict=True):
            assert tokens is not None
            labels = [token if weight > 0 else -100 for token, weight in zip(tokens.ids, row["tw"], strict=True)]
            if set(labels) != {-100}:
                expected.append({"input_ids": tokens.ids, "labels": labels, "token_weight": row["tw"]})
    assert len(expected) == 39, "the row of which no token is chosen is left out"
    dataset.export("trl", tmp_path / "trl")
    assert export_world.parquet(tmp_path / "trl") == expected
    dataset.export("axolotl", tmp_path / "axolotl")
    found = export_world.parquet(tmp_path / "axolotl")
    assert [[row["input_ids"], row["labels"]] for row in found] == [
        [row["input_ids"], row["labels"]] for row in expected
    ]
    assert all(row["attention_mask"] == [1] * len(row["input_ids"]) and len(row) == 3 for row in found)


def test_ms_swift_finds_the_weight_in_every_message_of_the_assistant(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("ms-swift", tmp_path)
    found = export_world.lines(tmp_path)
    assert [row["messages"][-1]["content"] for row in found] == [words(row, dataset) for row in dataset.rows]
    assert all(("loss_scale" in turn) <= (turn["role"] == "assistant") for row in found for turn in row["messages"])
    if dataset.kind != "resampled":
        assert [row["messages"][-1]["loss_scale"] for row in found] == dataset.weights.tolist()
    arguments = yaml.safe_load((tmp_path / "swift.yaml").read_text())
    assert arguments["is_binary_loss_scale"] is False
    assert [tmp_path / path for path in arguments["dataset"]] == sorted(tmp_path.rglob("*.jsonl"))


def test_llamafactory_finds_the_weight_in_every_message(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("llamafactory", tmp_path)
    found = export_world.lines(tmp_path)
    assert [row["messages"][-1]["content"][0]["value"] for row in found] == [
        words(row, dataset) for row in dataset.rows
    ]
    assert [row["messages"][-1]["loss_weight"] for row in found] == dataset.weights.tolist()
    assert {turn["loss_weight"] for row in found for turn in row["messages"] if turn["role"] != "assistant"} <= {0.0}
    info = yaml.safe_load((tmp_path / "dataset_info.yaml").read_text())
    assert (tmp_path / info["curate"]["path"]).is_dir()


def test_axolotl_sees_rows_as_often_as_they_weigh(dataset: Dataset, tmp_path: Path) -> None:
    only(dataset, *WEIGHS_ROWS, "resampled")
    dataset.export("axolotl", tmp_path)
    found = export_world.parquet(tmp_path)
    said = [row["text"] if "text" in row else row["messages"][-1]["content"] for row in found]
    count = Counter(said)
    copies = np.array([count[words(row, dataset)] for row in dataset.rows])
    assert copies.sum() == len(found) == 40
    assert (np.abs(copies - dataset.weights) < 1).all()
    settings = yaml.safe_load((tmp_path / "axolotl.yaml").read_text())["datasets"][0]
    assert settings["type"] == ("completion" if "text" in found[0] else "chat_template")


def weighed_buckets(dataset: Dataset) -> dict[int, list[int]]:
    """Rows by floor(8 log2 w), the slow and obvious way."""
    found: dict[int, list[int]] = {}
    for row, weight in enumerate(dataset.weights.astype(float).tolist()):
        if weight > 0:
            found.setdefault(int(np.floor(8 * np.log2(weight))), []).append(row)
    return dict(sorted(found.items()))


def test_the_sampler_draws_rows_in_proportion_to_their_weights(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("sampler", tmp_path)
    found = json.loads((tmp_path / "sampling.json").read_text())
    expected = weighed_buckets(dataset)
    drawn = np.zeros(40)
    for name, probability, rows in zip(found["configs"], found["probabilities"], expected.values(), strict=True):
        ids = [row["id"] for row in export_world.parquet(tmp_path / "data" / name)]
        assert ids == rows
        drawn[ids] = probability / len(ids)
    weights = dataset.weights / dataset.weights.sum()
    positive = weights > 0
    assert drawn.sum() == pytest.approx(1)
    assert (drawn[~positive] == 0).all()
    assert np.abs(drawn[positive] / weights[positive] - 1).max() < 0.1
    card = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])
    assert [each["config_name"] for each in card["configs"]] == found["configs"]


def test_an_epoch_of_mosaic_streams_repeats_rows_as_they_weigh(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("mosaic", tmp_path)
    streams = yaml.safe_load((tmp_path / "streams.yaml").read_text())["streams"]
    rows, seen = dataset.rows, np.zeros(40)
    said = {words(row, dataset): number for number, row in enumerate(rows)}
    for (name, stream), expected in zip(streams.items(), weighed_buckets(dataset).values(), strict=True):
        found = export_world.mds(tmp_path / stream["local"])
        numbers = [said[[*plain_text(row)][-1]] for row in found]
        assert numbers == expected, name
        seen[numbers] = stream["repeat"]
        if dataset.layout.weight is not None:
            assert [np.float32(row["weight"]) for row in found] == dataset.weights[numbers].tolist()
    positive = dataset.weights > 0
    assert np.abs(seen[positive] / dataset.weights[positive] - 1).max() < 0.1


def plain_text(row: dict[str, Any]) -> list[str]:
    """What a sample says, the assistant last."""
    return [turn["content"] for turn in turns(row)]


def test_megatron_draws_tokens_in_proportion_to_the_weights_of_their_rows(dataset: Dataset, tmp_path: Path) -> None:
    dataset.export("megatron", tmp_path)
    blend = (tmp_path / "blend.txt").read_text().split()
    shares, names = [float(share) for share in blend[::2]], blend[1::2]
    table = pa.concat_tables(dataset.tables)
    ids = [tokens.ids for tokens in dataset.tokenizer(table, cut=False) if tokens is not None]
    assert len(ids) == 40
    assert max(map(len, ids)) > export_world.MAX_TOKENS, "rows are whole"
    drawn, end = np.zeros(40), dataset.tokenizer.end
    for share, name, rows in zip(shares, names, weighed_buckets(dataset).values(), strict=True):
        documents = export_world.indexed(tmp_path / name)
        assert documents == [ids[row] if ids[row][-1] == end else [*ids[row], end] for row in rows]
        drawn[rows] = share / sum(map(len, documents))
    assert not (tmp_path / "pieces").exists()
    positive = dataset.weights > 0
    per_token = drawn[positive] / dataset.weights[positive]
    assert per_token.max() / per_token.min() < 1.2
    lengths = np.array([len(row) + (row[-1] != end) for row in ids])
    assert (drawn * lengths).sum() == pytest.approx(1, abs=1e-6)


@given(st.lists(st.floats(2**-10, 2**10, width=32), min_size=1, max_size=50))
def test_no_weight_is_a_tenth_off_the_mean_of_its_bucket(weights: list[float]) -> None:
    values, seen = np.array(weights, np.float32), []
    for _, rows in buckets.split(values):
        own = values[rows].astype(float)
        assert np.abs(own / own.mean() - 1).max() < 0.1
        seen += rows.tolist()
    assert sorted(seen) == [*range(len(weights))]


def test_token_weights_that_do_not_fit_the_tokens_are_refused(tmp_path: Path) -> None:
    dataset = export_world.make(tmp_path, "tokens")
    table = pq.read_table(dataset.parts[0])
    shorter = pa.array([row[1:] for row in table["tw"].to_pylist()], table["tw"].type)
    pq.write_table(table.set_column(table.column_names.index("tw"), "tw", shorter), dataset.parts[0])
    with pytest.raises(IntegrityError, match="token weights for"):
        dataset.export("trl", tmp_path / "out")


def test_what_json_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="columns a, b"):
        write_lines(tmp_path / "x.jsonl", [{"a": 1, "b": float("nan")}])
    with pytest.raises(CurateError, match="type set"):
        write_lines(tmp_path / "x.jsonl", [{"a": {1}}])
    assert not [*tmp_path.iterdir()]


def test_an_unknown_trainer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"one of hf, trl, ms-swift"):
        find("nothing")

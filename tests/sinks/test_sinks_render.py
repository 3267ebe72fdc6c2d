from __future__ import annotations

import json

import datasets
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import IntegrityError
from curate.sinks.base import OutputConfig
from curate.sinks.render import render
from curate.sinks.selection import ShardWeights, select

CONFIGS = (
    OutputConfig(),
    OutputConfig(mode="filtered", keep=0.5),
    OutputConfig(mode="filtered", keep=0.5, hard=True),
    OutputConfig(mode="filtered", tokens=9),
    OutputConfig(mode="filtered", threshold=1.0),
    OutputConfig(mode="resampled", rows=13),
)
NAN = float("nan")
WEIGHTS = np.float32([2.0, NAN, 0.25, 2.0, 0.5, 1.0])
REASONS = [None, "text is null", None, None, None, None]
TOKENS = np.array([3, 0, 4, 5, 6, 2])


def pool() -> pa.Table:
    schema = pa.schema(
        [
            pa.field("text", pa.large_string(), metadata={"about": "prose"}),
            ("source", pa.dictionary(pa.int8(), pa.string())),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("amount", pa.decimal128(6, 2)),
        ],
        metadata={"origin": "test"},
    )
    columns = {
        "text": [f"text {n}" if n != 1 else None for n in range(6)],
        "source": pa.array(list("aabbcc")).dictionary_encode().cast(schema.field("source").type),
        "messages": [[{"role": "user", "content": str(n)}] for n in range(6)],
        "amount": pa.array(range(6)).cast(pa.decimal128(22, 2)).cast(pa.decimal128(6, 2)),
    }
    return pa.table(columns, schema=schema)


def rendered(config: OutputConfig, table: pa.Table | None = None, weights=WEIGHTS, reasons=REASONS):
    selection = select(lambda: [ShardWeights(weights, TOKENS)], config, seed=1)
    table = pool() if table is None else table
    return render(table, weights, reasons, selection=selection, config=config, shard=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_original_columns_keep_order_types_and_metadata(config):
    out = rendered(config)
    for table in (out.kept, out.dropped):
        assert table.column_names[:4] == pool().column_names
        for n, field in enumerate(pool().schema):
            assert table.schema.field(n).equals(field, check_metadata=True)
        assert table.schema.metadata == {b"origin": b"test"}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_row_ends_in_exactly_one_place(config):
    out = rendered(config)
    kept = set(out.kept["amount"].to_pylist())
    dropped = out.dropped["amount"].to_pylist()
    assert len(kept) == out.distinct
    assert kept.isdisjoint(dropped)
    assert out.distinct + out.dropped.num_rows == 6
    assert all(out.dropped["reason"].to_pylist())


@given(st.lists(st.floats(0, 50, width=32) | st.just(NAN), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_written_weights_have_mean_one(weights):
    values = np.float32(weights)
    if not np.nan_to_num(values).max() > 1e-6:
        return
    reasons = ["short" if np.isnan(w) else None for w in values]
    for config in CONFIGS[:3]:
        out = rendered(config, weights=values, reasons=reasons)
        assert np.mean(out.kept["weight"].to_numpy(), dtype=np.float64) == pytest.approx(1, abs=2e-6)


def test_weights_of_mean_one_are_written_bit_for_bit():
    weights = np.float32([0.1, 1.9, 1.3, 0.7, 0.4, 1.6])
    out = rendered(OutputConfig(), weights=weights, reasons=[None] * 6)
    assert out.kept["weight"].to_numpy().tobytes() == weights.tobytes()
    assert out.dropped.num_rows == 0


def test_a_hard_selection_writes_one():
    assert set(rendered(CONFIGS[2]).kept["weight"].to_pylist()) == {1.0}


def test_reasons_tell_rule_weight_and_limit():
    by_rule = [rendered(config).dropped["reason"].to_pylist() for config in CONFIGS]
    assert by_rule[0] == ["text is null"]
    below = [f"weight {weight} below the threshold 2" for weight in ("0.25", "0.5", "1")]
    assert by_rule[1] == ["text is null", *below]
    assert by_rule[3][1] == "weight 0.25: over the token budget"
    assert by_rule[5][0] == "text is null"
    tied = rendered(OutputConfig(mode="filtered", keep=0.2)).dropped["reason"].to_pylist()
    assert tied[2] == "weight 2 equals the threshold, and earlier rows of that weight were kept"


def test_resampled_rows_are_repeated_in_order_without_a_weight():
    out = rendered(CONFIGS[5])
    assert "weight" not in out.kept.column_names
    assert out.kept.num_rows == 13
    amounts = out.kept["amount"].to_pylist()
    assert amounts == sorted(amounts)


def test_a_shard_is_rendered_alone_as_it_is_with_all_others():
    weights = [np.float32([1, 2, 2, 0.5]), np.float32([]), np.float32([2, 2, 0.1])]
    config = OutputConfig(mode="filtered", keep=0.43)  # 3 of 7: ties run over the shard border
    selection = select(lambda: [ShardWeights(values) for values in weights], config)
    kept = []
    for shard in (2, 0, 1):
        values = weights[shard]
        table = pa.table({"id": pa.array([f"{shard}:{row}" for row in range(len(values))], pa.string())})
        out = render(table, values, [None] * len(values), selection=selection, config=config, shard=shard)
        kept += out.kept["id"].to_pylist()
    assert sorted(kept) == ["0:1", "0:2", "2:0"]


def test_a_reason_column_of_the_pool_is_left_alone():
    table = pool().append_column("reason", pa.array(["mine"] * 6))
    out = rendered(OutputConfig(), table)
    assert out.dropped["reason"].to_pylist() == ["mine"]
    assert out.dropped["reason_2"].to_pylist() == ["text is null"]


def test_features_stored_by_datasets_gain_the_new_column():
    table = datasets.Dataset.from_dict({"text": list("abcdef"), "label": [0, 1] * 3}).cast_column(
        "label", datasets.ClassLabel(names=["no", "yes"])
    )
    arrow = table.with_format("arrow")[:]
    out = rendered(OutputConfig(), arrow)
    for part, name, kind in ((out.kept, "weight", "float32"), (out.dropped, "reason", "string")):
        features = json.loads(part.schema.metadata[b"huggingface"])["info"]["features"]
        assert features[name] == {"dtype": kind, "_type": "Value"}
        assert features["label"]["names"] == ["no", "yes"]


@pytest.mark.parametrize("stored", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"other": {}}}}'])
def test_features_that_do_not_describe_the_table_are_dropped(stored):
    out = rendered(OutputConfig(), pool().replace_schema_metadata({b"huggingface": stored}))
    assert out.kept.schema.metadata is None


@pytest.mark.parametrize("config", CONFIGS)
def test_datasets_and_polars_read_what_is_written(config, tmp_path):
    table = datasets.Dataset.from_dict({"text": list("abcdef"), "n": list(range(6))}).with_format("arrow")[:]
    out = rendered(config, table)
    (tmp_path / "data").mkdir()
    pq.write_table(out.kept, tmp_path / "data" / "train-00000-of-00001.parquet")
    loaded = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    frame = pl.read_parquet(tmp_path / "data" / "*.parquet")
    assert loaded["n"][:] == frame["n"].to_list() == out.kept["n"].to_pylist()
    if config.mode != "resampled":
        assert loaded.features["weight"].dtype == "float32"
        assert frame["weight"].to_list() == out.kept["weight"].to_pylist()


def test_tables_that_do_not_fit_together_are_refused():
    with pytest.raises(IntegrityError, match="5 reasons"):
        rendered(OutputConfig(), reasons=[None] * 5)


LISTS = pa.array([[0, 0.5], None, [0, 2, 1], [], [1.5], [0, 0]], pa.list_(pa.float16()))


@pytest.mark.parametrize("config", CONFIGS)
def test_token_weights_stay_with_their_rows_whatever_is_kept(config):
    """A resampled dataset has no column of weights at all."""
    selection = select(lambda: [ShardWeights(WEIGHTS, TOKENS)], config, seed=1)
    out = render(
        pool(), WEIGHTS, REASONS, selection=selection, config=config, shard=0, token_weights=LISTS
    ).kept  # fmt: skip
    if config.mode == "resampled":
        assert "token_weight" not in out.column_names
        return
    rows = [int(text.removeprefix("text ")) for text in out["text"].to_pylist()]
    assert out["token_weight"].to_pylist() == [LISTS[row].as_py() for row in rows]
    assert out.column_names[-2:] == ["weight", "token_weight"]
    assert out.schema.field("token_weight").type == pa.list_(pa.float16())


def test_token_weights_are_known_to_datasets(tmp_path):
    table = datasets.Dataset.from_dict({"text": ["a", "b"]}).data.table
    features = datasets.Features({"text": datasets.Value("string")})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features.to_dict()}})})
    weights, config = np.float32([1.5, 0.5]), OutputConfig(token_weight_column="tw")
    selection = select(lambda: [ShardWeights(weights)], config)
    own = pa.array([[0, 2.0], [0.25]], pa.list_(pa.float16()))
    kept = render(
        table, weights, [None, None], selection=selection, config=config, shard=0, token_weights=own
    ).kept  # fmt: skip
    pq.write_table(kept, tmp_path / "part.parquet")
    found = datasets.Dataset.from_parquet(str(tmp_path / "part.parquet"), cache_dir=str(tmp_path / "cache"))
    assert found.features["tw"] == datasets.List(datasets.Value("float16"))
    assert found["tw"][:] == [[0, 2.0], [0.25]]

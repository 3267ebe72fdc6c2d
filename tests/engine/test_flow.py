"""The whole flow on a tiny pool: every kind of source, proxy, method and output; every way an input can be wrong."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import zstandard

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, CurateError, DataError, ModelError
from curate.methods.registry import METHODS
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

READERS = [name for name, entry in METHODS.items() if entry.reads == "features"]
AIMED = [name for name in READERS if METHODS[name].method().needs_target]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture
def run(world: World, tmp_path: Path) -> Callable[..., Path]:
    """A function that runs the tiny pipeline with changed sections and returns the run directory."""

    def run(name: str = "run", **changes: Any) -> Path:
        return flow.run(config.validate(world.settings(**changes)), tmp_path / name)

    return run


@pytest.fixture(scope="session")
def plain(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without changes: BDS, weighted, from Parquet."""
    return flow.run(config.validate(world.settings()), tmp_path_factory.mktemp("plain") / "run")


# Sources


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path / "pool.parquet", row_group_size=7)
    return path / "pool.parquet"


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "pool.jsonl").write_bytes(lines(rows))
    return path / "pool.jsonl"


def as_gzip(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "pool.jsonl.gz").write_bytes(gzip.compress(lines(rows)))
    return path / "pool.jsonl.gz"


def as_zstd(path: Path, rows: list[dict[str, Any]]) -> Path:
    (path / "pool.jsonl.zst").write_bytes(zstandard.compress(lines(rows)))
    return path / "pool.jsonl.zst"


def as_arrow_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_file(path / "pool.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return path / "pool.arrow"


def as_arrow_stream(path: Path, rows: list[dict[str, Any]]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(path / "pool.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=9)
    return path / "pool.arrow"


def as_saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    datasets.Dataset.from_list(rows).save_to_disk(path / "saved")
    return path / "saved"


def as_saved_splits(path: Path, rows: list[dict[str, Any]]) -> Path:
    whole = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(train=whole, test=whole.select(range(3))).save_to_disk(path / "saved")
    return path / "saved"


SOURCES = [as_parquet, as_jsonl, as_gzip, as_zstd, as_arrow_file, as_arrow_stream, as_saved, as_saved_splits]


@pytest.mark.parametrize("write", SOURCES, ids=lambda write: write.__name__)
def test_every_format_gives_the_same_weights(world, run, tmp_path, write):
    """Weights within rounding of those of the plain Parquet run of one file: same rows, same shards, same batches."""
    rows = [{"id": row, "text": text} for row, text in enumerate(tiny_world.texts(60))]
    found = run(pool={"path": str(write(tmp_path, rows))})
    table = tiny_world.written(found)
    assert table.column_names == ["id", "text", "weight"]
    assert table.drop_columns(["weight"]).to_pylist() == rows
    again = run("again", pool={"path": str(as_parquet(tmp_path, rows))})
    assert table["weight"].to_pylist() == tiny_world.written(again)["weight"].to_pylist()


KINDS: dict[str, tuple[Callable[[int, str], dict[str, Any]], dict[str, Any]]] = {
    "text": (lambda row, text: {"body": text}, {"text": "body"}),
    "prompt and completion": (
        lambda row, text: {"question": text[:20], "answer": text[20:]},
        {"prompt": "question", "completion": "answer"},
    ),
    "messages": (
        lambda row, text: {"chat": [{"role": "user", "content": text[:9]}, {"role": "assistant", "content": text[9:]}]},
        {"messages": "chat"},
    ),
}


@pytest.mark.parametrize("write", [as_parquet, as_jsonl])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_is_weighed(run, tmp_path, kind, write):
    make, columns = KINDS[kind]
    (tmp_path / "target").mkdir()
    rows = [{"row": row, **make(row, text)} for row, text in enumerate(tiny_world.texts(60))]
    target = [make(row, tiny_world.animal(row)) for row in range(1000, 1012, 2)]
    found = run(
        pool={"path": str(write(tmp_path, rows)), **columns},
        target={"path": str(write(tmp_path / "target", target)), **columns},
    )
    table = tiny_world.written(found)
    assert table.drop_columns(["weight"]).to_pylist() == rows
    check_weights(table)
    assert prefers_animals(table["weight"].to_numpy())


def prefers_animals(weights: np.ndarray) -> bool:
    return bool(weights[1::2].mean() > 1.2 * weights[::2].mean())


def check_weights(table: pa.Table, column: str = "weight") -> None:
    weights = table[column].to_numpy()
    assert table.schema.field(column).type == pa.float32()
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert weights.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)


def test_pool_and_target_may_differ_in_kind_of_text(run, tmp_path):
    rows = [{"question": text[:20], "answer": text[20:]} for text in tiny_world.texts(60)]
    check_weights(
        tiny_world.written(
            run(pool={"path": str(as_jsonl(tmp_path, rows)), "prompt": "question", "completion": "answer"})
        )
    )


# Proxies and methods


@pytest.mark.parametrize("name", METHODS)
def test_every_method_weighs_the_pool_to_mean_one(run, name):
    found = run(**tiny_world.own(name))
    check_weights(tiny_world.written(found))
    assert tiny_world.manifest(found)["method"] == name


@pytest.mark.parametrize("name", AIMED)
def test_every_method_with_a_target_prefers_what_resembles_it(run, name):
    assert prefers_animals(tiny_world.weights(run(**tiny_world.own(name))))


@pytest.mark.parametrize("name", [name for name in READERS if name not in AIMED])
def test_a_method_without_a_target_gives_the_same_weights_with_and_without_one(run, name):
    alone, there = run("alone", target=None, **tiny_world.own(name)), run("there", **tiny_world.own(name))
    check_weights(tiny_world.written(alone))
    assert not (alone / "commits" / "target").exists()
    assert (tiny_world.weights(alone) == tiny_world.weights(there)).all()
    assert tiny_world.manifest(alone)["target_sha256"] is None


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.reads == "nothing"])
def test_a_method_that_reads_nothing_needs_neither_model_nor_target(run, name):
    found = run(method={"name": name}, model=None, target=None, features=None)
    check_weights(tiny_world.written(found))
    assert not (found / "features").exists()


PROXIES: dict[str, dict[str, Any]] = {
    "adapters": {"lora": {"rank": 4}},
    "warmed-up adapters": {"lora": {"rank": 4}, "warmup": {"tokens": 600, "batch_tokens": 200}},
    "warmed-up model": {"warmup": {"tokens": 600, "batch_tokens": 200}},
    "model from scratch": {"from_scratch": True, "warmup": {"tokens": 600, "batch_tokens": 200}},
    "eager attention": {"attention": "eager"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", PROXIES)
def test_every_kind_of_proxy_weighs_the_pool(run, name):
    check_weights(tiny_world.written(run(model=PROXIES[name])))


def test_gpt2_is_a_proxy(world, run, tmp_path):
    model = tiny_world.write_model(tmp_path / "gpt2", "gpt2")
    weights = tiny_world.weights(run(model={"name": str(model)}))
    assert prefers_animals(weights)
    lora = run("lora", model={"name": str(model), "lora": {"rank": 4}, "warmup": {"tokens": 300, "batch_tokens": 200}})
    check_weights(tiny_world.written(lora))


def test_adam_features_read_the_moments_of_the_warm_up(run):
    warmup = {"warmup": {"tokens": 600, "batch_tokens": 200}}
    adam = run("adam", model=warmup, features={"optimizer": "adam"}, method={"name": "less"})
    plain = run("sgd", model=warmup, method={"name": "less"})
    check_weights(tiny_world.written(adam))
    assert not np.allclose(tiny_world.weights(adam), tiny_world.weights(plain))


def test_several_named_targets_are_served_together(world, run, tmp_path):
    numbers = as_parquet(tmp_path, [{"text": tiny_world.numeral(n)} for n in range(1001, 1013, 2)])
    both = [{"name": "animals", "path": str(world.target)}, {"name": "numbers", "path": str(numbers)}]
    alone = tiny_world.weights(run("alone", target=both[:1]))
    together = tiny_world.weights(run("together", target=both))
    preference = [weights[1::2].mean() / weights[::2].mean() for weights in (alone, together)]
    assert preference[0] > 1.2 * preference[1]
    assert 0.3 < preference[1] < 3


def test_a_longer_row_than_max_tokens_is_cut_for_features_only(run, tmp_path):
    rows = [{"text": text + " and so on" * 50 * (n == 3)} for n, text in enumerate(tiny_world.texts(40))]
    table = tiny_world.written(run(pool={"path": str(as_parquet(tmp_path, rows))}))
    assert table["text"].to_pylist() == [row["text"] for row in rows]
    check_weights(table)


# Outputs


@pytest.mark.parametrize("rule", [{"keep": 0.3}, {"threshold": 1.0}, {"tokens": 500}, {"tokens": 5e2}])
@pytest.mark.parametrize("hard", [False, True])
def test_a_filtered_dataset_holds_the_heaviest_rows_and_accounts_for_all(plain, run, rule, hard):
    found = run(output={"mode": "filtered", "hard": hard, **rule})
    table, weights = tiny_world.written(found), tiny_world.weights(plain)
    kept = table["id"].to_pylist()
    assert kept == sorted(kept)
    assert 0 < len(kept) < 60
    assert weights[kept].min() >= np.delete(weights, kept).max()
    assert len(tiny_world.dropped(found)) == 60 - len(kept)
    assert all(reason.startswith("weight ") for reason in tiny_world.dropped(found))
    check_weights(table)
    if hard:
        assert set(table["weight"].to_pylist()) == {1.0}
    if "keep" in rule:
        assert len(kept) == 18
    if "threshold" in rule:
        assert weights[kept].min() >= 1 > np.delete(weights, kept).max()


def test_a_token_budget_is_not_exceeded_whatever_the_method(world, run):
    """A method that reads no features counts tokens with the proxy's tokenizer when it weighs."""
    tokenizer = tiny_world.load_tokenizer(world.model)
    for method in ("bds", "random"):
        found = run(method, method={"name": method}, output={"mode": "filtered", "tokens": 500})
        texts = tiny_world.written(found)["text"].to_pylist()
        total = sum(min(48, len(ids)) for ids in tokenizer(texts)["input_ids"])
        assert 500 - 48 < total <= 500


def test_a_resampled_dataset_repeats_rows_by_their_weight(plain, run):
    found = run(output={"mode": "resampled", "rows": 90})
    table, weights = tiny_world.written(found), tiny_world.weights(plain)
    copies = np.bincount(table["id"].to_numpy(), minlength=60)
    assert table.column_names == ["id", "text"]
    assert copies.sum() == 90
    assert (np.abs(copies - 1.5 * weights) < 1 + 1e-5).all()
    assert len(tiny_world.dropped(found)) == int((copies == 0).sum())


def test_another_name_for_the_weight_is_used(run):
    check_weights(tiny_world.written(run(output={"weight_column": "how much"})), "how much")


@pytest.mark.parametrize("output", [{}, {"mode": "filtered", "keep": 0.5}])
def test_a_column_named_weight_is_a_config_error_with_a_free_name(run, tmp_path, output):
    rows = [{"text": text, "weight": 3.0} for text in tiny_world.texts(20)]
    with pytest.raises(ConfigError, match=r"output\.weight_column: curate_weight"):
        run(pool={"path": str(as_parquet(tmp_path, rows))}, output=output)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_resampled_pool_may_have_a_column_named_weight(run, tmp_path):
    rows = [{"text": text, "weight": 3.0} for text in tiny_world.texts(20)]
    found = run(pool={"path": str(as_parquet(tmp_path, rows))}, output={"mode": "resampled", "rows": 10})
    assert tiny_world.written(found).column_names == ["text", "weight"]


# Rows


BAD = {3: None, 11: "", 17: " \n\t", 41: None}


def with_bad_rows() -> list[dict[str, Any]]:
    return [{"id": row, "text": BAD.get(row, text)} for row, text in enumerate(tiny_world.texts(60))]


def test_a_bad_row_stops_the_run_and_is_named(run, tmp_path):
    with pytest.raises(DataError) as error:
        run(pool={"path": str(as_parquet(tmp_path, with_bad_rows()))})
    assert "pool.parquet, row 3, column" in error.value.where
    assert error.value.found == "null"
    assert "pool.on_bad_row: drop" in error.value.fix


@pytest.mark.parametrize("method", ["bds", "random"])
@pytest.mark.parametrize("output", [{}, {"mode": "filtered", "keep": 0.5}, {"mode": "resampled", "rows": 30}])
def test_every_row_is_written_or_set_apart_with_its_reason(run, tmp_path, method, output):
    pool = {"path": str(as_parquet(tmp_path, with_bad_rows())), "on_bad_row": "drop", "max_dropped": 0.1}
    found = run(pool=pool, method={"name": method}, output=output)
    table, reasons = tiny_world.written(found), tiny_world.dropped(found)
    apart = [
        row for path in sorted((found / "dropped").glob("*.parquet")) for row in pq.read_table(path)["id"].to_pylist()
    ]
    assert sorted({*table["id"].to_pylist(), *apart}) == list(range(60))
    assert len(set(table["id"].to_pylist())) + len(apart) == 60
    assert [reason for row, reason in zip(apart, reasons, strict=True) if row in BAD] == [
        'column "text": null', 'column "text": empty', 'column "text": empty', 'column "text": null',
    ]  # fmt: skip
    facts = tiny_world.manifest(found)
    assert (facts["rows_in"], facts["rows_kept"] + facts["rows_dropped"]) == (60, 60)
    assert facts["rows_out"] == table.num_rows
    if "mode" not in output:
        check_weights(table)


def test_a_row_with_nothing_to_predict_is_set_apart(run, tmp_path):
    rows = [{"id": row, "text": "</s>" if row == 4 else text} for row, text in enumerate(tiny_world.texts(40))]
    found = run(pool={"path": str(as_parquet(tmp_path, rows)), "on_bad_row": "drop"})
    assert 4 not in tiny_world.written(found)["id"].to_pylist()
    assert tiny_world.dropped(found) == ["no token to predict"]


def test_an_unusable_target_row_is_named(run, tmp_path):
    target = as_jsonl(tmp_path, [{"text": "the cat sat"}, {"text": None}])
    with pytest.raises(DataError, match=r"row 1.*null"):
        run(target={"path": str(target)})


def test_a_pool_of_one_row_weighs_one(run, tmp_path):
    found = run(pool={"path": str(as_jsonl(tmp_path, [{"text": "the cat sat on the mat"}]))})
    assert tiny_world.written(found)["weight"].to_pylist() == [1.0]


@pytest.mark.parametrize("write", [as_parquet, as_arrow_file, as_arrow_stream])
def test_a_file_without_rows_gives_an_empty_part(world, run, tmp_path, write):
    path = write(tmp_path, [{"id": 0, "text": "x"}])
    empty = pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())})
    if write is as_parquet:
        pq.write_table(empty, path)
    else:
        new = pa.ipc.new_file if write is as_arrow_file else pa.ipc.new_stream
        with new(path, empty.schema) as writer:
            writer.write_table(empty)
    folder = tmp_path / "mixed"
    shutil.copytree(world.pool, folder)
    shutil.copy(path, folder / f"a-first{path.suffix}")
    found = run(pool={"path": str(folder)})
    parts = sorted((found / "dataset" / "data").glob("*.parquet"))
    assert [pq.read_metadata(part).num_rows for part in parts] == [0, 20, 10, 20, 10]
    assert len({str(pq.read_schema(part)) for part in parts}) == 1
    assert len(datasets.load_dataset(str(found / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))) == 60


def test_an_empty_jsonl_file_among_others_is_fine(run, tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    as_jsonl(folder, [{"text": text} for text in tiny_world.texts(20)])
    (folder / "empty.jsonl").write_bytes(b"")
    assert tiny_world.written(run(pool={"path": str(folder)})).num_rows == 20


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_without_rows_is_refused(run, tmp_path, method):
    path = as_parquet(tmp_path, [{"text": "x"}])
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=r"pool \(.*\): found no rows"):
        run(pool={"path": str(path)}, **tiny_world.own(method))


def test_a_pool_of_which_every_row_is_set_apart_is_refused(run, tmp_path):
    pool = {"path": str(as_jsonl(tmp_path, [{"text": None}, {"text": ""}])), "on_bad_row": "drop", "max_dropped": 1.0}
    for method in METHODS:
        with pytest.raises(DataError):
            run(method, pool=pool, **tiny_world.own(method))
    with pytest.raises(DataError, match="no valid row"):
        run("warmed up", pool=pool, model={"warmup": {"tokens": 100}})


# Inputs that cannot be used


def refuse(kind: type[CurateError], run: Callable[..., Path], **changes: Any) -> CurateError:
    with pytest.raises(kind) as error:
        run(**changes)
    assert type(error.value) is kind
    return error.value


def test_an_absent_column_is_answered_with_the_one_meant(run):
    error = refuse(ConfigError, run, pool={"text": "txt"})
    assert error.where == "pool.text"
    assert error.fix == 'Did you mean "text"?'


def test_a_glob_that_matches_nothing_is_named_with_its_directory(run, tmp_path):
    error = refuse(ConfigError, run, pool={"path": f"{tmp_path}/none-*.parquet"})
    assert "none-*.parquet" in error.found
    assert str(tmp_path) in error.found


def test_a_text_column_of_numbers_is_refused_before_any_work(run, tmp_path):
    error = refuse(DataError, run, pool={"path": str(as_parquet(tmp_path, [{"text": 3}]))})
    assert "int64" in error.found
    assert not (tmp_path / "run" / "commits").exists()


def test_a_broken_line_is_named_with_file_line_and_column(run, tmp_path):
    path = as_jsonl(tmp_path, [{"text": text} for text in tiny_world.texts(12)])
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*content[:7], b'{"text": "the cat" oops}\n', *content[8:]]))
    assert "pool.jsonl, line 8" in refuse(DataError, run, pool={"path": str(path)}).where


def test_a_file_that_is_not_parquet_is_refused_with_its_first_bytes(run, tmp_path):
    (tmp_path / "pool.parquet").write_bytes(b"GIF89a\x1b[31m" * 20)
    error = refuse(DataError, run, pool={"path": str(tmp_path / "pool.parquet")})
    assert "pool.parquet" in error.where
    assert "b'GIF8'" in error.found


@pytest.mark.parametrize("write", [as_gzip, as_zstd])
def test_compressed_lines_that_end_early_are_refused(run, tmp_path, write):
    path = write(tmp_path, [{"text": text} for text in tiny_world.texts(60)])
    path.write_bytes(path.read_bytes()[:-40])
    assert "pool.jsonl" in refuse(DataError, run, pool={"path": str(path)}).where


def test_files_of_different_columns_are_refused_side_by_side(run, tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": [1]}), tmp_path / "b.parquet")
    error = refuse(DataError, run, pool={"path": str(tmp_path / "*.parquet")})
    assert "int64" in error.found
    assert "string" in error.expected


def test_a_model_without_weights_is_refused_with_the_way_out(run, tmp_path):
    model = tiny_world.write_model(tmp_path / "bare", "llama", weights=False)
    assert "model.from_scratch: true" in refuse(ModelError, run, model={"name": str(model)}).fix


def test_a_model_that_is_not_there_is_refused(run, tmp_path):
    assert "nothing there" in refuse(ModelError, run, model={"name": f"{tmp_path}/no such model"}).found


def test_pickled_weights_and_repository_code_are_refused(world, run, tmp_path):
    pickled, scripted = tmp_path / "pickled", tmp_path / "scripted"
    for copy in (pickled, scripted):
        shutil.copytree(world.model, copy)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    settings = json.loads((scripted / "config.json").read_bytes())
    (scripted / "config.json").write_text(json.dumps({**settings, "auto_map": {"AutoModel": "evil.Model"}}))
    assert "only pickled weights" in refuse(ModelError, run, model={"name": str(pickled)}).found
    assert "its own code" in refuse(ModelError, run, model={"name": str(scripted)}).found


def test_the_tokenizer_of_another_model_is_refused_with_the_ids(run, tmp_path):
    larger = tiny_world.write_tokenizer(tmp_path / "larger", vocab=400)
    error = refuse(ModelError, run, model={"tokenizer": str(larger)})
    assert error.found == "token id 399"
    assert "0 to 319" in error.expected
    assert "model.tokenizer" in error.fix


def test_an_added_token_beyond_the_vocabulary_is_refused_where_it_occurs(world, run, tmp_path):
    """Added tokens the texts never use are harmless and common; one that occurs is refused with its row."""
    extended = tiny_world.load_tokenizer(world.model)
    extended.add_tokens(["<extra>"])
    extended.save_pretrained(tmp_path / "extended")
    check_weights(tiny_world.written(run("harmless", model={"tokenizer": str(tmp_path / "extended")})))
    rows = [{"text": text + " <extra>" * (n == 27)} for n, text in enumerate(tiny_world.texts(40))]
    changes = {"pool": {"path": str(as_parquet(tmp_path, rows))}, "model": {"tokenizer": str(tmp_path / "extended")}}
    error = refuse(ModelError, run, **changes)
    assert "320" in error.found
    assert error.where.endswith("pool.parquet, row 27")


def test_chat_messages_without_a_template_are_refused(world, run, tmp_path):
    copy = tmp_path / "plain"
    shutil.copytree(world.model, copy)
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    make, columns = KINDS["messages"]
    rows = [make(row, text) for row, text in enumerate(tiny_world.texts(10))]
    error = refuse(ModelError, run, pool={"path": str(as_jsonl(tmp_path, rows)), **columns}, model={"name": str(copy)})
    assert error.found == "no chat template"


def test_more_tokens_than_the_model_has_positions_are_refused(run):
    error = refuse(ModelError, run, model={"max_tokens": 100})
    assert (error.where, error.found) == ("model.max_tokens", "100")


def test_a_target_without_rows_is_refused(world, run, tmp_path):
    pq.write_table(pq.read_table(world.target).slice(0, 0), tmp_path / "target.parquet")
    assert refuse(DataError, run, target={"path": str(tmp_path / "target.parquet")}).found == "no rows"


def test_a_threshold_that_no_row_meets_is_refused_and_the_weights_stay(run, tmp_path):
    error = refuse(ConfigError, run, output={"mode": "filtered", "threshold": 1e6})
    assert "largest weight" in error.found
    assert sorted((tmp_path / "run" / "commits" / "weigh").iterdir())
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_directory_of_something_else_is_not_touched(run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert "thesis.tex" in refuse(ConfigError, run).found
    assert (tmp_path / "run" / "thesis.tex").read_text() == "x"


# What comes out


def test_columns_of_unusual_types_come_out_unchanged_and_in_order(run, tmp_path):
    rows = 24
    table = pa.table(
        {
            "when": pa.array(range(rows), pa.timestamp("ns", "UTC")),
            "text": tiny_world.texts(rows),
            "bytes": pa.array([bytes([n, 0, 255]) for n in range(rows)], pa.binary()),
            "nothing": pa.nulls(rows),
            "turns": pa.array([[{"who": "a", "n": n}] * (n % 3) for n in range(rows)]),
            "kind": pa.array(["x", "y", None] * (rows // 3)).dictionary_encode(),
            "<script>&\n": pa.array([Decimal(n) / 8 for n in range(rows)], pa.decimal128(20, 10)),
            "pair": pa.array([[n, n + 1] for n in range(rows)], pa.list_(pa.int16(), 2)),
            "map": pa.array([[("k", n)] for n in range(rows)], pa.map_(pa.string(), pa.int8())),
            "large": pa.array(["z" * n for n in range(rows)], pa.large_string()),
            "half": pa.array(np.arange(rows, dtype=np.float16)),
            "view": pa.array(["v"] * rows, pa.string_view()),
            "day": pa.array(range(rows), pa.date32()),
            "flag": pa.array([True, None] * (rows // 2)),
        }
    )  # fmt: skip
    with pa.ipc.new_file(tmp_path / "pool.arrow", table.schema) as writer:
        writer.write_table(table)
    found = tiny_world.written(run(pool={"path": str(tmp_path / "pool.arrow")}, method={"name": "random"}))
    assert found.column_names == [*table.column_names, "weight"]
    assert found.drop_columns(["weight"]).to_pylist() == table.to_pylist()
    same = [name for name in table.column_names if name not in ("kind", "view")]
    assert [found.schema.field(name).type for name in same] == [table.schema.field(name).type for name in same]


def test_the_manifest_and_the_card_name_what_was_done(world, plain):
    facts, card = tiny_world.manifest(plain), (plain / "dataset" / "README.md").read_text()
    assert (facts["method"], facts["mode"], facts["rows_in"], facts["rows_out"]) == ("bds", "weighted", 60, 60)
    assert {part["path"] for part in facts["parts"]} == {
        str(path.relative_to(plain)) for path in (plain / "dataset").rglob("*") if path.is_file()
    }
    for fact in ("bds", "2511.21056", "mean 1", facts["config_sha256"][:8]):
        assert fact in card.replace("\\", "")


def test_parts_state_the_method_the_config_and_the_normalisation(plain):
    """DESIGN: Parquet metadata and the card state method, model, target, config, version and normalisation."""
    facts = tiny_world.manifest(plain)
    for part in sorted((plain / "dataset" / "data").glob("*.parquet")):
        stated = {key.decode(): value.decode() for key, value in (pq.read_schema(part).metadata or {}).items()}
        curate = json.loads(stated["curate"])
        for key in ("method", "model", "revision", "target_sha256", "config_sha256", "version", "normalisation"):
            assert curate[key] == facts[key], key


def test_no_promised_file_names_a_place_a_time_or_a_host(plain, world):
    for path in tiny_world.promised(plain):
        content = (plain / path).read_bytes()
        if path != "run.json":
            assert str(world.root).encode() not in content, path
            assert str(plain).encode() not in content, path


def test_the_same_pipeline_twice_gives_the_same_bytes(plain, run):
    assert tiny_world.promised(run()) == tiny_world.promised(plain)


def test_another_seed_gives_other_projections_but_the_same_rows(plain, run):
    other = run(features={"projection": {"dim": 64}}, seed=5, method={"name": "random"})
    assert tiny_world.written(other)["id"].to_pylist() == tiny_world.written(plain)["id"].to_pylist()
    assert tiny_world.manifest(other)["config_sha256"] != tiny_world.manifest(plain)["config_sha256"]


def test_pages_of_every_part_carry_checksums(plain):
    """One bit flipped in a page is found by a reader that verifies checksums."""
    part = sorted((plain / "dataset" / "data").glob("*.parquet"))[0]
    content = bytearray(part.read_bytes())
    column = pq.read_metadata(part).row_group(0).column(1)
    content[column.dictionary_page_offset + column.total_compressed_size // 2] ^= 1
    with pytest.raises((OSError, pa.ArrowException)):
        pq.ParquetFile(io.BytesIO(bytes(content)), page_checksum_verification=True).read()


def test_two_datasets_in_directories_of_one_name_do_not_load_as_one(world, tmp_path):
    """`datasets` names its cache after the last part of the path and the card's header, which were the same for all runs:
    the second dataset loaded as the first, without a word."""
    for method in ("uniform", "random"):
        found = flow.run(config.validate(world.settings(method={"name": method})), tmp_path / method)
        loaded = datasets.load_dataset(str(found / "dataset"), split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded["weight"][:] == tiny_world.written(found)["weight"].to_pylist()

"""The whole flow on a tiny pool with every kind of feature, every way to store it, and several checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, IntegrityError
from curate.features import store
from curate.features.batched import NO_LOSS, collate
from curate.features.ngrams import counts
from curate.gradients import persample
from curate.gradients.base import ProjectionSettings
from curate.gradients.preconditioner import make_preconditioner
from curate.methods import less
from curate.methods.registry import METHODS
from curate.models import loading
from curate.models.base import ModelConfig
from curate.models.warmup import load_optimizer
from curate.results import inspect
from curate.stages import proxy_states
from curate.storage import tables
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

WARMUP = {"tokens": 600, "batch_tokens": 200}
FEW = {"shard_rows": 40}
"""Two shards."""
VECTORS: dict[str, dict[str, Any]] = {
    "embeddings": {"name": "embeddings", "projection": None},
    "ngrams": {"name": "ngrams", "dim": 200, "projection": None},
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture
def run(world: World, tmp_path: Path) -> Callable[..., Path]:
    """A function that runs the tiny pipeline with changed sections and returns the run directory."""

    def run(name: str = "run", **changes: Any) -> Path:
        return flow.run(settings(world, **changes), tmp_path / name)

    return run


def settings(world: World, **changes: Any) -> config.Pipeline:
    """The tiny pipeline; a key that is None is left out of the features."""
    content = world.settings(**changes)
    content["features"] = {key: value for key, value in content["features"].items() if value is not None}
    return config.validate(content)


@pytest.fixture(scope="session")
def exact(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gradients stored in float32, for `less`."""
    changes = {"features": {"dtype": "float32", "projection": {"dim": 1024}}, "method": {"name": "less"}}
    return flow.run(settings(world, **changes), tmp_path_factory.mktemp("exact") / "run")


def features(run: Path, shard: int = 0) -> pa.Table:
    return tables.read_arrow(run / "features" / f"part-{shard:05d}.arrow")


def matrix(run: Path) -> np.ndarray:
    """Decoded features of the whole pool."""
    shards = len(list((run / "features").glob("part-*.arrow")))
    return np.concatenate([store.rows(features(run, shard)) for shard in range(shards)])


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)


def prefers_animals(weights: np.ndarray) -> bool:
    return bool(weights[1::2].mean() > 1.2 * weights[::2].mean())


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, method) for kind in VECTORS for method, entry in METHODS.items() if kind in entry.method().reads],
)
def test_every_method_prefers_what_resembles_the_target_in_any_kind_of_feature_it_reads(run, kind, method):
    found = run(features=VECTORS[kind], method={"name": method})
    weights = tiny_world.written(found)["weight"].to_numpy()
    assert weights.mean(dtype=np.float64) == pytest.approx(1, abs=1e-6)
    assert prefers_animals(weights)


@pytest.mark.parametrize("kind", VECTORS)
def test_features_state_how_they_were_made_and_are_the_same_bytes_again(run, kind):
    one, again = run("one", features=VECTORS[kind]), run("again", features=VECTORS[kind])
    assert tiny_world.promised(one) == tiny_world.promised(again)
    stated = json.loads(features(one).schema.metadata[b"curate.features"])
    asked = json.loads((one / "run.json").read_bytes())["config"]["features"]
    assert stated == {key: value for key, value in asked.items() if key != "model"}
    assert stated["name"] == kind
    assert b"curate.checkpoints" not in features(one).schema.metadata


# N-grams


def test_ngrams_need_neither_model_nor_tokenizer(run):
    found = run(features=VECTORS["ngrams"], model=None)
    assert not (found / "commits" / "proxy").exists()
    assert prefers_animals(tiny_world.weights(found))
    assert [features(found)[name].null_count for name in ("loss", "tokens")] == [20, 20]
    sample = inspect.sample(found, "1:7")
    assert (sample.loss, sample.tokens) == (None, None)
    assert sample.norm > 1


def test_ngrams_of_a_conversation_are_the_counts_of_what_was_said(run, tmp_path):
    turns = [
        [{"role": "user", "content": text[:9]}, {"role": "assistant", "content": text[9:]}]
        for text in tiny_world.texts(60)
    ]
    pq.write_table(pa.table({"chat": turns}), tmp_path / "chat.parquet")
    pool = {"path": str(tmp_path / "chat.parquet"), "messages": "chat"}
    rows = matrix(run(pool=pool, features={**VECTORS["ngrams"], "dtype": "float32"}, model=None))
    for row, text in enumerate(tiny_world.texts(60)):
        expected = np.zeros(200)
        for bucket, count in counts(f"{text[:9]}\n{text[9:]}", 200).items():
            expected[bucket] = count
        np.testing.assert_allclose(rows[row], expected, rtol=1e-6)


def test_a_token_budget_over_ngrams_counts_the_proxys_tokens(world, run):
    found = run(features=VECTORS["ngrams"], output={"mode": "filtered", "tokens": 500})
    tokenizer = tiny_world.load_tokenizer(world.model)
    texts = tiny_world.written(found)["text"].to_pylist()
    assert 500 - 48 < sum(min(48, len(ids)) for ids in tokenizer(texts)["input_ids"]) <= 500


def test_ngrams_do_not_depend_on_the_interpreters_hash_seed():
    code = "from curate.features.ngrams import counts; print(sorted(counts('The cat, the hat; one mat!', 97).items()))"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1] != ""


# Losses and embeddings


def test_losses_are_stored_as_they_are_for_a_method_that_reads_them(run, world, monkeypatch):
    """None does yet: less is made to. The oracle is the model's own loss on each text alone."""
    monkeypatch.setattr(less.METHOD, "reads", ("losses",))
    found = run(features={"name": "losses", "projection": None}, method={"name": "less"})
    model, tokenizer = AutoModelForCausalLM.from_pretrained(world.model), tiny_world.load_tokenizer(world.model)
    rows = matrix(found)
    for row, text in enumerate(tiny_world.texts(60)):
        ids = torch.tensor(tokenizer([text + "</s>"])["input_ids"])[:, :48]
        with torch.no_grad():
            loss = float(model(ids, labels=ids).loss)
        assert rows[row] == pytest.approx([loss, ids.shape[1] - 1], rel=1e-5)
    assert features(found)["loss"].to_numpy() == pytest.approx(rows[:20, 0], rel=1e-6)


def test_losses_are_refused_by_a_method_that_compares_directions(run):
    with pytest.raises(ConfigError, match="method bds cannot use features"):
        run(features={"name": "losses", "projection": None})


def test_a_row_with_nothing_to_predict_is_set_apart_from_embeddings(run, tmp_path):
    rows = [{"id": row, "text": "</s>" if row == 4 else text} for row, text in enumerate(tiny_world.texts(40))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pool.parquet")
    found = run(pool={"path": str(tmp_path / "pool.parquet"), "on_bad_row": "drop"}, features=VECTORS["embeddings"])
    assert tiny_world.dropped(found) == [NO_LOSS]
    assert 4 not in tiny_world.written(found)["id"].to_pylist()


# Storage


@pytest.mark.parametrize("dtype", ["float16", "int8", "bits"])
def test_every_way_to_store_gradients_prefers_the_same_samples(run, exact, dtype):
    found = run("found", features={"dtype": dtype, "projection": {"dim": 1024}}, method={"name": "less"})
    size = {"float16": 2048, "int8": 1024, "bits": 128}[dtype]
    assert features(found)["feature"].nbytes == 20 * size
    ranks = [np.argsort(np.argsort(tiny_world.weights(each))) for each in (exact, found)]
    least = {"float16": 0.999, "int8": 0.99, "bits": 0.9}[dtype]
    assert np.corrcoef(*ranks)[0, 1] >= least
    assert inspect.sample(found, "0:3").norm == pytest.approx(inspect.sample(exact, "0:3").norm, rel=0.3)


# Checkpoints


def test_features_of_two_checkpoints_have_the_weighted_mean_of_both_cosines(world, run):
    """Each part of a row, alone, is the feature of a run whose proxy is that checkpoint."""
    both = run("both", pool=FEW, model={"warmup": {**WARMUP, "checkpoints": 2}}, features={"dtype": "float32"})
    last = run("last", pool=FEW, model={"warmup": WARMUP}, features={"dtype": "float32"})
    place = both / "state" / "checkpoints" / "00" / "proxy"
    first = run("first", pool=FEW, model={"name": str(place)}, features={"dtype": "float32"})
    shares = json.loads((both / "commits" / "proxy" / "00000.json").read_bytes())["facts"]["checkpoints"]
    assert sum(shares) == pytest.approx(1)
    assert json.loads(features(both).schema.metadata[b"curate.checkpoints"]) == shares
    parts = [unit(matrix(each)) for each in (first, last)]
    expected = sum(share * part @ part.T for share, part in zip(shares, parts, strict=True))
    rows = matrix(both)
    assert rows.shape == (60, 128)
    np.testing.assert_allclose(unit(rows) @ unit(rows).T, expected, atol=1e-5)
    np.testing.assert_allclose(features(both)["loss"].to_numpy(), features(last)["loss"].to_numpy())


def test_weights_of_checkpoints_are_their_spans_mean_learning_rates(run):
    """The rise and the cosine make the second of three spans larger than the third, by what the schedule says."""
    found = run(pool=FEW, model={"warmup": {**WARMUP, "checkpoints": 3}})
    shares = json.loads((found / "commits" / "proxy" / "00000.json").read_bytes())["facts"]["checkpoints"]
    assert len(shares) == 3
    assert shares[0] > shares[1] > shares[2] > 0
    assert sorted(path.name for path in (found / "state" / "checkpoints").iterdir()) == ["00", "01"]


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_every_checkpoint_has_its_own_moments_of_adam(run, world, lora):
    """Rows 0 and 5 of the pool, one checkpoint and one sample at a time."""
    warmup = {**WARMUP, "checkpoints": 2}
    changes = {"features": {"dtype": "float32", "optimizer": "adam"}, "method": {"name": "less"}}
    found = run(pool=FEW, model={"warmup": warmup, "lora": lora}, **changes)
    record = json.loads((found / "commits" / "proxy" / "00000.json").read_bytes())
    assert {str(Path(part["path"]).parent) for part in record["parts"]} == {
        "state", "state/proxy", "state/checkpoints/00", "state/checkpoints/00/proxy",
    }  # fmt: skip
    settings = ModelConfig.model_validate({"name": str(world.model), "max_tokens": 48, "warmup": warmup, "lora": lora})
    rows, stored = (0, 5), matrix(found)
    expected = [np.zeros(0)] * len(rows)
    for place, share in zip(("checkpoints/00", "."), record["facts"]["checkpoints"], strict=True):
        state = found / "state" / place
        model = loading.load(state / "proxy", config=settings, seed=0, tokenizer=world.model)
        moments = load_optimizer((state / "optimizer.safetensors").read_bytes())
        adam = make_preconditioner(model, moments, beta1=0.9, beta2=0.95)
        for number, row in enumerate(rows):
            ids = model.tokenizer(tiny_world.texts(60)[row] + "</s>")["input_ids"][:48]
            batch = collate([0], [ids], [[False, *[True] * (len(ids) - 1)]])
            values, _ = persample.features(model, batch, projection=ProjectionSettings(dim=64), preconditioner=adam)
            expected[number] = np.append(expected[number], share**0.5 * unit(values.numpy())[0])
    np.testing.assert_allclose(stored[list(rows)], expected, atol=2e-4)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_worker_holds_one_checkpoint_at_a_time(run, monkeypatch, lora):
    alive: list[weakref.ref[Any]] = []
    load = loading.load

    def watched(*arguments: Any, **options: Any) -> Any:
        assert [model for model in alive if model() is not None] == []
        loaded = load(*arguments, **options)
        alive.append(weakref.ref(loaded.causal))
        return loaded

    monkeypatch.setattr(loading, "load", watched)
    run(pool=FEW, model={"lora": lora, "warmup": {**WARMUP, "checkpoints": 2}}, features={"optimizer": "adam"})
    assert len(alive) >= 1 + 3 * 2


def test_a_damaged_checkpoint_is_found_and_the_run_ends_in_the_same_bytes(run, monkeypatch, tmp_path):
    changes = {"pool": FEW, "model": {"warmup": {**WARMUP, "checkpoints": 2}}, "method": {"name": "less"}}
    whole = tiny_world.promised(run("run", **changes))
    part = tmp_path / "run" / "state" / "checkpoints" / "00" / "proxy" / "model.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    for path in (tmp_path / "run" / "commits" / "featurize").iterdir():
        path.unlink()
    proxy_states._held.clear()
    with pytest.raises(IntegrityError, match=r"checkpoints/00/proxy/model\.safetensors"):
        run("run", **changes)
    run("run", **changes)
    found = tiny_world.promised(tmp_path / "run")
    assert {path: sha for path, sha in found.items() if not path.startswith("quarantine")} == whole

"""A user's own training as the proxy: its weights, and Adam's moments from its checkpoint; budgets found, not given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator

from curate import config
from curate.engine import flow
from curate.errors import ConfigError, ModelError
from curate.features import store
from curate.features.batched import collate
from curate.gradients import persample
from curate.gradients.base import ProjectionSettings
from curate.gradients.preconditioner import make_preconditioner
from curate.models import loading
from curate.models.base import ModelConfig
from curate.models.warmup import Moments
from curate.storage import tables
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

ADAM = {"optimizer": "adam", "dtype": "float32"}
LESS = {"name": "less"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Moments]]:
    """A checkpoint of the real Trainer after four steps, and the moments of its live optimizer."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(world.model), tiny_world.load_tokenizer(world.model)
    ids = [tokenizer(text)["input_ids"][:8] for text in tiny_world.texts(16)]
    rows: Any = [{"input_ids": row, "labels": row} for row in ids]
    out = tmp_path_factory.mktemp("training")
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=4, save_steps=4, per_device_train_batch_size=4, adam_beta2=0.95,
        report_to=[], disable_tqdm=True, use_cpu=True, learning_rate=1e-3,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer, data_collator=default_data_collator
    )
    trainer.train()
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert trainer.optimizer is not None
    state = {names[parameter]: values for parameter, values in trainer.optimizer.state.items()}
    moments = {name: Moments(each["exp_avg"], each["exp_avg_sq"], int(each["step"])) for name, each in state.items()}
    return out / "checkpoint-4", moments


def run(world: World, directory: Path, **changes: Any) -> Path:
    return flow.run(config.validate(world.settings(**changes)), directory)


def facts(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "commits" / "proxy" / "00000.json").read_bytes())["facts"]


def test_adam_directions_come_from_the_trainers_checkpoint(world, trained, tmp_path):
    """Rows 0 and 5 of the pool under the moments of the optimizer that was alive."""
    checkpoint, moments = trained
    model = {"name": str(checkpoint), "optimizer": str(checkpoint)}
    found = run(world, tmp_path / "run", model=model, features=ADAM, method=LESS)
    stated = facts(found)["optimizer"]
    assert "checkpoint-4 (Hugging Face Trainer): 14 of 14 parameters matched" in stated["found"]
    assert (stated["beta1"], stated["beta2"]) == (0.9, 0.95)
    notes = [json.loads(line) for line in (found / "logs" / "events.jsonl").read_text().splitlines()]
    assert any(stated["found"] == event.get("text") for event in notes)
    language_model = loading.load(checkpoint, config=ModelConfig(name=str(checkpoint), max_tokens=48), seed=0)
    adam = make_preconditioner(language_model, moments, beta1=0.9, beta2=0.95)
    stored = store.rows(tables.read_arrow(found / "features" / "part-00000.arrow"))
    for row in (0, 5):
        ids = language_model.tokenizer(tiny_world.texts(60)[row] + "</s>")["input_ids"][:48]
        batch = collate([0], [ids], [[False, *[True] * (len(ids) - 1)]])
        values, _ = persample.features(
            language_model, batch, projection=ProjectionSettings(dim=64), preconditioner=adam
        )
        assert np.corrcoef(values.numpy()[0], stored[row])[0, 1] > 0.99999


def test_another_checkpoint_is_another_proxy(world, trained, tmp_path):
    """A resume whose moments changed underneath is refused, like one whose weights changed."""
    checkpoint, _ = trained
    moments = tmp_path / "optimizer.pt"
    moments.write_bytes((checkpoint / "optimizer.pt").read_bytes())
    model = {"name": str(checkpoint), "optimizer": str(moments)}
    run(world, tmp_path / "run", model=model, features=ADAM, method=LESS)
    state = torch.load(moments, weights_only=True)
    state["state"][0]["exp_avg"] += 1
    torch.save(state, moments)
    with pytest.raises(ConfigError, match="other content"):
        run(world, tmp_path / "run", model=model, features=ADAM, method=LESS)


def test_a_checkpoint_that_is_not_there_is_named(world, tmp_path):
    with pytest.raises(ModelError, match=r"model\.optimizer: nowhere"):
        run(world, tmp_path / "run", model={"optimizer": "nowhere"}, features=ADAM, method=LESS)


@pytest.mark.parametrize("other", [{"warmup": {"tokens": 600, "batch_tokens": 200}}, {"from_scratch": True}])
def test_moments_of_weights_that_are_not_used_are_refused(world, trained, other):
    with pytest.raises(ConfigError, match="remove one"):
        config.validate(world.settings(model={"optimizer": str(trained[0]), **other}))


def test_a_budget_is_found_once_and_kept(world, tmp_path, monkeypatch):
    """The resume of a run sees another machine's memory and keeps to the number that was found."""
    monkeypatch.setattr("curate.models.device.free_bytes", lambda device: 2**40)
    changes: dict[str, Any] = {"features": {"batch_tokens": "auto"}}
    found = run(world, tmp_path / "auto", **changes)
    assert facts(found)["batch_tokens"] == 4096
    given = run(world, tmp_path / "given", features={"batch_tokens": 4096})
    parts = [(each / "features" / "part-00001.arrow") for each in (found, given)]
    tables_read = [tables.read_arrow(part)["feature"] for part in parts]
    assert tables_read[0].equals(tables_read[1])
    monkeypatch.setattr("curate.models.device.free_bytes", lambda device: 0)
    parts[0].unlink()
    run(world, tmp_path / "auto", **changes)
    assert facts(found)["batch_tokens"] == 4096
    assert tables.read_arrow(parts[0])["feature"].equals(tables_read[0])


def test_recomputed_blocks_give_the_same_weights(world, tmp_path):
    plain, again = (run(world, tmp_path / str(flag), model={"gradient_checkpointing": flag}) for flag in (False, True))
    np.testing.assert_allclose(tiny_world.weights(plain), tiny_world.weights(again), rtol=1e-3)


@pytest.mark.parametrize("projection", [{"kind": "factorised", "dim": 64}, {"kind": "concat", "rank": 4, "dim": 64}])
def test_fast_projections_prefer_what_resembles_the_target(world, tmp_path, projection):
    features = {"projection": projection, "layers": {"depth": 0.5, "modules": ["o_proj", "down_proj"]}}
    found = tiny_world.weights(run(world, tmp_path / "run", features=features))
    assert found[1::2].mean() > 1.2 * found[::2].mean()

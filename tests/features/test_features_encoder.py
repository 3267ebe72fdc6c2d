"""Embeddings by an encoder with its own tokenizer, against the plain model one text at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from curate import config
from curate.engine import flow
from curate.engine.plan import plan
from curate.errors import ConfigError, ModelError
from curate.features import store
from curate.models.encoder import MAX_TOKENS, load_encoder
from curate.models.size import model_size
from curate.storage import tables
from tests.pipelines import tiny_world
from tests.pipelines.tiny_world import World

WIDE = {"vocab_size": 330, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": WIDE,
    "roberta": {**WIDE, "pad_token_id": 1, "max_position_embeddings": 514},
    "mpnet": WIDE,
    "distilbert": {"vocab_size": 330, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2},
    "t5": {"vocab_size": 330, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2},
    "llama": {**WIDE, "num_key_value_heads": 2},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    torch.set_num_threads(1)
    return tiny_world.make(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that writes a tiny encoder of an architecture, once."""
    made: dict[str, Path] = {}

    def write(kind: str) -> Path:
        if kind not in made:
            made[kind] = tiny_world.write_tokenizer(tmp_path_factory.mktemp("encoder") / kind)
            torch.manual_seed(2)
            model = AutoModel.from_config(AutoConfig.for_model(kind, **SHAPES[kind]))
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            model.save_pretrained(made[kind])
        return made[kind]

    return write


def settings(world: World, encoder: Path, **changes: Any) -> config.Pipeline:
    content = world.settings(model=None, method={"name": "less"}, **changes)
    content["features"] = {"name": "embeddings", "model": str(encoder), "dtype": "float32"}
    return config.validate(content)


def matrix(run: Path) -> np.ndarray:
    parts = sorted((run / "features").glob("part-*.arrow"))
    return np.concatenate([store.rows(tables.read_arrow(part)) for part in parts])


@torch.no_grad()
def plain(directory: Path, text: str) -> np.ndarray:
    """Mean last hidden state of one text, cut as the encoder cuts it."""
    model, tokenizer = AutoModel.from_pretrained(directory), PreTrainedTokenizerFast.from_pretrained(directory)
    body = model.get_encoder() if model.config.is_encoder_decoder else model
    ids = torch.tensor([tokenizer(text)["input_ids"][:MAX_TOKENS]])
    return body(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0].mean(0).numpy()


@pytest.mark.parametrize("kind", SHAPES)
def test_embeddings_are_the_encoders_mean_hidden_state_of_each_text_alone(world, encoder, tmp_path, kind):
    run = flow.run(settings(world, encoder(kind)), tmp_path / "run")
    rows = matrix(run)
    assert rows.shape == (60, 16)
    for row in (0, 7, 31, 59):
        np.testing.assert_allclose(rows[row], plain(encoder(kind), tiny_world.texts(60)[row]), rtol=1e-4, atol=1e-4)
    assert not (run / "commits" / "proxy").exists()
    weights = tiny_world.weights(run)
    assert weights[1::2].mean() > 1.2 * weights[::2].mean()


def test_the_place_of_the_encoder_does_not_matter_and_is_not_told(world, encoder, tmp_path):
    shutil.copytree(encoder("bert"), tmp_path / "elsewhere" / "bert")
    one = flow.run(settings(world, encoder("bert")), tmp_path / "one")
    other = flow.run(settings(world, tmp_path / "elsewhere" / "bert"), tmp_path / "other")
    for path in sorted((one / "features").iterdir()):
        content = path.read_bytes()
        assert content == (other / "features" / path.name).read_bytes()
        assert str(encoder("bert")).encode() not in content
    manifest = tiny_world.manifest(one)
    stated = tables.read_arrow(one / "features" / "part-00000.arrow").schema.metadata[b"curate.encoder"].decode()
    assert (manifest["model"], manifest["revision"]) == ("bert", stated)


def test_another_encoder_at_its_place_is_refused_on_a_resume(world, encoder, tmp_path):
    own = shutil.copytree(encoder("bert"), tmp_path / "bert")
    run = flow.run(settings(world, own), tmp_path / "run")
    weights = own / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ConfigError, match=r"features\.model: found files with other content"):
        flow.run(settings(world, own), run)


def test_an_encoder_that_wants_to_run_code_or_has_pickled_weights_is_refused(world, encoder, tmp_path):
    scripted, pickled = (shutil.copytree(encoder("bert"), tmp_path / name) for name in ("scripted", "pickled"))
    content = json.loads((scripted / "config.json").read_bytes())
    (scripted / "config.json").write_text(json.dumps({**content, "auto_map": {"AutoModel": "evil.Model"}}))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for directory, found in ((scripted, "its own code"), (pickled, "only pickled weights")):
        with pytest.raises(ModelError, match=found):
            flow.run(settings(world, directory), tmp_path / "run")


def test_an_encoder_without_all_its_weights_is_refused(encoder, tmp_path):
    own = shutil.copytree(encoder("bert"), tmp_path / "bert")
    content = json.loads((own / "config.json").read_bytes())
    (own / "config.json").write_text(json.dumps({**content, "num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="no weights for"):
        load_encoder(own)


def test_long_texts_are_cut_to_what_the_encoder_takes(encoder):
    made = load_encoder(encoder("roberta"))
    assert made.max_tokens == MAX_TOKENS
    [ids] = made.tokenize(["a cat " * 2000])
    assert len(ids) == MAX_TOKENS
    assert made.tokenize([]) == []


def test_the_plan_counts_the_encoder_and_no_proxy(world, encoder, tmp_path):
    estimate = plan(settings(world, encoder("bert")), tmp_path / "run")
    stages = {stage.stage: stage for stage in estimate.stages}
    model = AutoModel.from_pretrained(encoder("bert"))
    assert estimate.parameters == model.num_parameters()
    assert model_size(encoder("bert"), encoder=True).width == 16
    assert "proxy" not in stages
    assert stages["featurize"].tokens > 60
    assert stages["featurize"].disk == 60 * (4 * 16 + 32)


def test_a_token_budget_found_for_the_proxy_is_none_for_an_encoder(world, encoder):
    content = world.settings(model=None, method={"name": "less"})
    content["features"] = {"name": "embeddings", "model": str(encoder("bert")), "batch_tokens": "auto"}
    with pytest.raises(ConfigError, match=r"give a number with features\.model"):
        config.validate(content)

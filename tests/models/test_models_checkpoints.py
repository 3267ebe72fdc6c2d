"""Checkpoints of Hugging Face's own Trainer, taken while it might still write them: whole, half-written, swapped, of others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from curate.errors import ModelError
from curate.models import checkpoints, loading
from curate.models.adoption import adopt
from curate.models.base import LoraSettings, ModelConfig

ROWS = [{"input_ids": [5, 6, 7, 8, 9], "labels": [5, 6, 7, 8, 9]} for _ in range(8)]
LORA = LoraSettings(rank=2)


def train(model, out: Path) -> None:
    arguments = TrainingArguments(
        str(out), max_steps=4, save_steps=2, per_device_train_batch_size=2, learning_rate=1e-2, use_cpu=True,
        report_to="none", logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=ROWS).train()  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def base(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    train(AutoModelForCausalLM.from_pretrained(base), out)
    return out


@pytest.fixture
def directory(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "checkpoints"))


def test_newer_checkpoints_are_found_the_newest_first(directory: Path):
    found, unusable = checkpoints.newer(directory, 0)
    assert [each.step for each in found] == [4, 2]
    assert unusable == []
    assert [each.step for each in checkpoints.newer(directory, 2)[0]] == [4]
    assert checkpoints.newer(directory, 4)[0] == []
    assert checkpoints.newer(directory / "absent", 0) == ([], [])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no state yet": lambda path: (path / "trainer_state.json").unlink(),
    "half a state": lambda path: cut(path / "trainer_state.json"),
    "no weights yet": lambda path: (path / "model.safetensors").unlink(),
    "half the weights": lambda path: cut(path / "model.safetensors"),
    "an empty file": lambda path: (path / "model.safetensors").write_bytes(b""),
    "a header that lies": lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 64),
    "another step's state": lambda path: (path / "trainer_state.json").write_text('{"global_step": 7}'),
    "a state that is a list": lambda path: (path / "trainer_state.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_half_written_checkpoint_is_named_and_passed_over(directory: Path, damage: str):
    DAMAGE[damage](directory / "checkpoint-4")
    found, [line] = checkpoints.newer(directory, 0)
    assert [each.step for each in found] == [2]
    assert line.startswith("checkpoint-4: ")


def test_pieces_are_found_and_none_may_be_elsewhere(directory: Path):
    path = directory / "checkpoint-4"
    (path / "model.safetensors").rename(path / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (path / checkpoints.INDEX).write_text(json.dumps(index))
    assert [file.name for file in checkpoints.look(path, 4).files] == ["model-00001-of-00001.safetensors"]
    (path / checkpoints.INDEX).write_text(json.dumps({"weight_map": {"a": "../checkpoint-2/model.safetensors"}}))
    with pytest.raises(ModelError, match="other directories"):
        checkpoints.look(path, 4)


def test_a_copy_has_the_bytes_of_the_checkpoint(directory: Path, tmp_path: Path):
    whole = checkpoints.look(directory / "checkpoint-4", 4)
    [part] = checkpoints.copy(whole, tmp_path / "copy")
    assert part.path.read_bytes() == (directory / "checkpoint-4" / "model.safetensors").read_bytes()


def test_a_checkpoint_that_is_swapped_or_removed_while_it_is_read_is_refused(directory, tmp_path, monkeypatch):
    whole = checkpoints.look(directory / "checkpoint-4", 4)
    read = checkpoints.sha256_file

    def swapped(path: Path) -> str:
        found = read(path)
        shutil.copyfile(directory / "checkpoint-2" / "model.safetensors", path)
        return found

    monkeypatch.setattr(checkpoints, "sha256_file", swapped)
    with pytest.raises(ModelError, match="content that changed while it was read"):
        checkpoints.copy(whole, tmp_path / "copy")
    monkeypatch.setattr(checkpoints, "sha256_file", lambda path: [read(path), path.unlink()][0])
    with pytest.raises(ModelError, match="removed while it was read"):
        checkpoints.copy(whole, tmp_path / "copy")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.float()


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
def test_the_adopted_weights_are_the_trainers(name: str, checkpoint, tmp_path: Path):
    """Gemma and GPT-2 tie their output layer to the embedding, and Trainer writes it once."""
    base = checkpoint(name)
    model = AutoModelForCausalLM.from_pretrained(base)
    train(model, tmp_path)
    own = loading.load(base, config=ModelConfig(name=str(base), max_tokens=16), seed=0)
    before = logits(own.causal)
    adopt(own, checkpoints.look(tmp_path / "checkpoint-4", 4).files)
    assert torch.allclose(logits(own.causal), logits(model.eval()), atol=1e-6)
    assert not torch.allclose(before, logits(own.causal), atol=1e-3)


def test_the_adopted_adapters_are_the_trainers(base: Path, tmp_path: Path):
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=2, lora_alpha=LORA.alpha, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    train(model, tmp_path)
    config = ModelConfig(name=str(base), max_tokens=16, lora=LORA)
    own = loading.load(base, config=config, seed=0)
    [file] = checkpoints.look(tmp_path / "checkpoint-4", 4).files
    adopt(own, [file])
    assert torch.allclose(logits(own.model), logits(model.eval()), atol=1e-6)


def test_another_architecture_is_refused_by_the_name_of_a_tensor(base: Path, checkpoint, directory: Path):
    own = loading.load(base, config=ModelConfig(name=str(base), max_tokens=16), seed=0)
    before = logits(own.causal)
    with pytest.raises(ModelError, match="another architecture"):
        adopt(own, [checkpoint("gpt2") / "model.safetensors"])
    file = directory / "checkpoint-4" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    state["model.norm.weight"] = state["model.norm.weight"][:-1].clone()
    safetensors.torch.save_file(state, file)
    with pytest.raises(ModelError, match=r"model\.norm\.weight is 31, in the proxy 32"):
        adopt(own, [file])
    state["model.norm.weight"] = torch.full((32,), float("nan"))
    safetensors.torch.save_file(state, file)
    with pytest.raises(ModelError, match="not finite"):
        adopt(own, [file])
    assert torch.equal(before, logits(own.causal))

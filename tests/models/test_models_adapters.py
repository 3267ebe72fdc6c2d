"""Adapters that somebody trained: merged into their model, part of its identity, and never taken unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from curate.errors import ModelError
from curate.models import loading
from curate.models.base import ModelConfig
from curate.models.resolve import Resolved, resolve

Checkpoint = Callable[..., Path]
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "all layers and the head": {"target_modules": "all-linear", "modules_to_save": ["lm_head"]},
    "ranks of their own": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 1}},
}


def write(base: Path, directory: Path, seed: int = 0, **settings: Any) -> Path:
    """An adapter of the base with all its numbers drawn, as PEFT saves it."""
    config = LoraConfig(**{"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | settings)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(str(directory))
    return directory


def configured(name: Path | str, **settings: Any) -> ModelConfig:
    return ModelConfig.model_validate({"name": str(name), "max_tokens": 32, "dtype": "float32"} | settings)


def logits(config: ModelConfig) -> tuple[Resolved, Tensor]:
    found = resolve(config)
    loaded = loading.load(found.path, config=config, seed=0, tokenizer=found.tokenizer, adapter=found.adapter)
    assert not any("lora" in name for name, _ in loaded.model.named_parameters())
    return found, loaded.causal(input_ids=torch.arange(4, 20)[None]).logits


def beside(base: Path, adapter: Path) -> Tensor:
    """What PEFT computes with the adapter beside the weights."""
    clean = AutoModelForCausalLM.from_pretrained(base)
    return PeftModel.from_pretrained(clean, adapter).eval()(input_ids=torch.arange(4, 20)[None]).logits


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_merged_into_the_model_it_names(kind: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    adapter = write(base, tmp_path / "adapter", **KINDS[kind])
    found, given = logits(configured(adapter))
    assert (found.path, found.adapter) == (base, adapter)
    torch.testing.assert_close(given, beside(base, adapter), atol=1e-5, rtol=1e-5)
    _, named = logits(configured(base, adapter=str(adapter)))
    assert torch.equal(given, named)
    _, alone = logits(configured(base))
    assert not torch.allclose(given, alone, atol=1e-3)


def test_another_adapter_is_another_model(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    one, other = (resolve(configured(write(base, tmp_path / str(seed), seed))).sha256 for seed in (0, 1))
    assert one["model.safetensors"] == other["model.safetensors"]
    assert one["adapter/adapter_model.safetensors"] != other["adapter/adapter_model.safetensors"]


def test_a_directory_with_both_asks_which_is_meant(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    _, alone = logits(configured(base))
    adapter = write(base, tmp_path / "adapter")
    together = beside(base, adapter)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(adapter / name, base / name)
    with pytest.raises(ModelError, match="a model and an adapter beside it") as error:
        resolve(configured(base))
    assert f"`model.adapter: {base}`" in str(error.value)
    assert "`model.adapter: none`" in str(error.value)
    _, without = logits(configured(base, adapter="none"))
    assert torch.equal(without, alone)
    found, both = logits(configured(base, adapter=str(base)))
    assert found.adapter == base
    torch.testing.assert_close(both, together, atol=1e-5, rtol=1e-5)


def test_what_is_no_adapter_of_this_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base, other = checkpoint("llama"), checkpoint("gpt2")
    adapter = write(base, tmp_path / "adapter")
    with pytest.raises(ModelError, match="expected an adapter of this model"):
        logits(configured(other, adapter=str(adapter)))
    stored = json.loads((adapter / "adapter_config.json").read_text())
    stored["target_modules"] = ["q_proj", "v_proj", "o_proj"]
    (adapter / "adapter_config.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match="4 tensors missing and 0 unknown"):
        logits(configured(adapter))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda place: (place / "adapter_model.safetensors").unlink(), "no adapter_model.safetensors"),
        (lambda place: (place / "adapter_config.json").write_text("{"), "invalid JSON"),
        (lambda place: (place / "adapter_config.json").write_text("{}"), "no `base_model_name_or_path`"),
        (
            lambda place: (place / "adapter_config.json").write_text('{"base_model_name_or_path": "./gone"}'),
            "an adapter of ./gone, which is not found here",
        ),
    ],
)
def test_an_adapter_that_cannot_be_read_says_why(
    change: Callable[[Path], Any], found: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    adapter = write(checkpoint("llama"), tmp_path / "adapter")
    change(adapter)
    with pytest.raises(ModelError, match=found):
        resolve(configured(adapter))


def test_an_adapter_on_random_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="`adapter` was trained on the stored weights"):
        configured("anything", adapter="some", from_scratch=True)


def test_the_tokenizer_saved_with_the_adapter_is_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    adapter = write(base, tmp_path / "adapter")
    assert resolve(configured(adapter)).tokenizer == base
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, adapter / name)
    assert resolve(configured(adapter)).tokenizer == adapter
    assert resolve(configured(adapter).model_copy(update={"from_scratch": True})).tokenizer == adapter


def test_of_several_adapters_one_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    for name in ("first", "second"):
        write(base, tmp_path / "all" / name)
    with pytest.raises(ModelError, match="found adapters first, second"):
        resolve(configured(base, adapter=str(tmp_path / "all")))
    assert resolve(configured(base, adapter=str(tmp_path / "all" / "first"))).adapter == tmp_path / "all" / "first"


def test_tied_embeddings_with_an_adapter_are_not_merged_into_something_else(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    base = checkpoint("llama", tie_word_embeddings=True)
    adapter = write(base, tmp_path / "adapter", target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(ModelError, match="merged into the weights it computes something else"):
        logits(configured(adapter))


def test_a_proxy_with_new_adapters_over_a_merged_one_is_made_again(checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    config = configured(write(base, tmp_path / "adapter"), lora={"rank": 2})
    found = resolve(config)
    made = loading.load(found.path, config=config, seed=3, tokenizer=found.tokenizer, adapter=found.adapter)
    (tmp_path / "proxy").mkdir()
    for name, data in loading.files(made).items():
        (tmp_path / "proxy" / name).write_bytes(data)
    again = loading.load(tmp_path / "proxy", config=config, seed=9)
    for one, other in zip(made.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)

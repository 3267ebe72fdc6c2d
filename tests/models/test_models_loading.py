"""Loading models of many kinds and writing them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from curate.errors import ModelError
from curate.gradients.persample import features
from curate.gradients.projection import ProjectionSettings
from curate.models.base import ModelConfig
from curate.models.device import pick_device, pick_dtype, pin
from curate.models.language_model import LanguageModel, check_ids
from curate.models.loading import files, load
from curate.models.losses import sample_losses
from curate.models.packing import PACKED
from curate.models.resolve import resolve
from curate.types import Batch

Checkpoint = Callable[..., Path]
FAMILIES = [
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "granite", "cohere",
    "olmo2", "gpt_neox", "gpt2", "opt",
]  # fmt: skip


def settings(name: Path, **more: object) -> ModelConfig:
    return ModelConfig.model_validate({"name": str(name), "max_tokens": 32} | more)


def open_model(name: Path, *, seed: int = 0, **more: object) -> LanguageModel:
    return load(name, config=settings(name, **more), seed=seed)


def write(language_model: LanguageModel, directory: Path) -> Path:
    directory.mkdir()
    for name, data in files(language_model).items():
        (directory / name).write_bytes(data)
    return directory


def logits(language_model: LanguageModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return language_model.model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits


@pytest.mark.parametrize("architecture", FAMILIES)
def test_family_loads_runs_and_survives_a_round_trip(
    checkpoint: Checkpoint, batch: Batch, tmp_path: Path, architecture: str
) -> None:
    directory = checkpoint(architecture)
    resolve(settings(directory))
    language_model = open_model(directory)
    values, losses = features(language_model, batch, projection=ProjectionSettings(dim=64))
    assert values.isfinite().all()
    assert losses.isfinite().all()
    assert (values.norm(dim=1) > 0).all()
    again = load(write(language_model, tmp_path / "proxy"), config=settings(directory), seed=0)
    assert torch.equal(logits(again, batch), logits(language_model, batch))
    assert again.tokenizer("w5 w9").input_ids == language_model.tokenizer("w5 w9").input_ids


def test_files_are_the_same_bytes_every_time(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    assert files(open_model(directory)) == files(open_model(directory))


def test_tied_weights_are_written_once_and_stay_tied(checkpoint: Checkpoint, batch: Batch, tmp_path: Path) -> None:
    language_model = open_model(checkpoint("llama", tie_word_embeddings=True))
    out = write(language_model, tmp_path / "proxy")
    assert "lm_head.weight" not in safetensors.torch.load((out / "model.safetensors").read_bytes())
    again = open_model(out)
    assert again.causal.get_output_embeddings().weight is again.causal.get_input_embeddings().weight  # pyright: ignore
    assert torch.equal(logits(again, batch), logits(language_model, batch))


def test_from_scratch_depends_on_the_seed_only(checkpoint: Checkpoint, batch: Batch, tmp_path: Path) -> None:
    directory = checkpoint("llama", weights=False)
    torch.manual_seed(5)
    one = open_model(directory, seed=1, from_scratch=True)
    same = open_model(directory, seed=1, from_scratch=True)
    other = open_model(directory, seed=2, from_scratch=True)
    assert torch.equal(logits(one, batch), logits(same, batch))
    assert not torch.equal(logits(one, batch), logits(other, batch))
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    open_model(directory, seed=3, from_scratch=True)
    assert torch.equal(torch.rand(1), before)


def test_written_proxy_is_read_even_if_the_run_starts_from_scratch(
    checkpoint: Checkpoint, batch: Batch, tmp_path: Path
) -> None:
    """Workers load the warmed-up proxy with the run's own configuration, which says `from_scratch`."""
    directory = checkpoint("llama", weights=False)
    language_model = open_model(directory, from_scratch=True)
    with torch.no_grad():
        for parameter in language_model.model.parameters():
            parameter.add_(0.01)
    out = write(language_model, tmp_path / "proxy")
    again = load(out, config=settings(directory, from_scratch=True), seed=0)
    assert torch.equal(logits(again, batch), logits(language_model, batch))


@pytest.mark.parametrize("from_scratch", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_adapters_are_written_without_their_base(
    checkpoint: Checkpoint, batch: Batch, tmp_path: Path, architecture: str, from_scratch: bool
) -> None:
    directory = checkpoint(architecture)
    more = {"lora": {"rank": 2}, "from_scratch": from_scratch}
    language_model = open_model(directory, seed=4, **more)
    trained = [parameter for parameter in language_model.model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) < 2000
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1)
    out = write(language_model, tmp_path / "proxy")
    assert not (out / "model.safetensors").exists()
    again = load(out, config=settings(directory, **more), seed=0)
    assert torch.equal(logits(again, batch), logits(language_model, batch))
    rest = load(directory, config=settings(directory, **more), seed=4)
    assert not torch.equal(logits(rest, batch), logits(language_model, batch))
    assert files(again) == files(language_model)
    with pytest.raises(ModelError, match="adapters of other names or shapes"):
        load(out, config=settings(directory, lora={"rank": 3}, from_scratch=from_scratch), seed=0)


def test_unknown_adapter_targets_are_answered_with_the_layers_there_are(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"query_key.*down_proj.*q_proj"):
        open_model(checkpoint("llama"), lora={"targets": ["query_key"]})


def test_missing_weights_are_not_filled_with_random_numbers(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    file = directory / "model.safetensors"
    tensors = safetensors.torch.load(file.read_bytes())
    del tensors["model.layers.1.mlp.up_proj.weight"]
    file.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))
    with pytest.raises(ModelError, match=r"no usable weights for 1 parameters, first model\.layers\.1\.mlp\.up_proj"):
        open_model(directory)


def test_weights_of_another_shape_are_refused(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    with pytest.raises(ModelError, match="mlp"):
        open_model(directory)


def test_unknown_architecture_is_refused(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    (directory / "config.json").write_text('{"model_type": "strange"}')
    with pytest.raises(ModelError, match="supported architecture"):
        open_model(directory)


def test_more_tokens_than_positions_are_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"model\.max_tokens: found 65; expected at most 64"):
        open_model(checkpoint("gpt2"), max_tokens=65)


def test_tokenizer_larger_than_the_model_is_refused(checkpoint: Checkpoint) -> None:
    small = checkpoint("llama", vocab_size=40)
    with pytest.raises(ModelError, match=r"token id 60.*the 40 embeddings"):
        open_model(small)


def test_broken_tokenizer_is_refused(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="no usable tokenizer"):
        open_model(directory)


def test_ids_inside_the_vocabulary_pass() -> None:
    check_ids(torch.tensor([[0, 9]]), 10)
    check_ids(torch.empty(0, dtype=torch.int64), 10)
    with pytest.raises(ModelError, match="token id -1"):
        check_ids(torch.tensor([-1]), 10)


def test_gguf_file_becomes_an_ordinary_model(batch: Batch, tmp_path: Path) -> None:
    """What transformers loads from a GGUF file counts as quantised and can be neither trained nor saved."""
    file = write_gguf(tmp_path / "tiny.gguf")
    found = resolve(settings(file))
    assert (found.kind, found.tokenizer, set(found.sha256)) == ("gguf", file, {"tiny.gguf"})
    language_model = open_model(file)
    assert not hasattr(language_model.causal.config, "quantization_config")
    assert language_model.plain_head
    features(language_model, batch, projection=ProjectionSettings(dim=64))
    again = load(write(language_model, tmp_path / "proxy"), config=settings(file), seed=0)
    assert torch.equal(logits(again, batch), logits(language_model, batch))
    assert again.tokenizer("ab").input_ids == language_model.tokenizer("ab").input_ids
    adapted = open_model(file, lora={"rank": 2})
    out = write(adapted, tmp_path / "adapter")
    again = load(out, config=settings(file, lora={"rank": 2}), seed=0)
    assert torch.equal(logits(again, batch), logits(adapted, batch))


def test_bfloat16_and_eval_mode_are_as_configured(checkpoint: Checkpoint, batch: Batch) -> None:
    language_model = open_model(checkpoint("llama", attention_dropout=0.5), dtype="bfloat16")
    assert language_model.causal.dtype == torch.bfloat16
    one, other = (sample_losses(language_model, batch) for _ in range(2))
    assert torch.equal(one, other)
    assert one.dtype == torch.float32


def test_auto_dtype_on_a_cpu_is_float32() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype("auto", cpu) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    assert pick_device().type in ("cpu", "cuda")


def test_pin_sets_threads_and_deterministic_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        pin(1)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(before)


def write_gguf(path: Path) -> Path:
    """A Llama of two layers in float32, with a byte-level tokenizer of 61 tokens."""
    rng = np.random.default_rng(0)
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(64)
    out.add_embedding_length(32)
    out.add_block_count(2)
    out.add_feed_forward_length(48)
    out.add_head_count(4)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_dimension_count(8)
    out.add_vocab_size(61)
    out.add_tokenizer_model("gpt2")
    tokens = ["<unk>", "<s>", "</s>", *(chr(97 + i) for i in range(26)), "ab", *(f"x{i}" for i in range(31))]
    out.add_token_list(tokens)
    out.add_token_types([3, 3, 3] + [1] * 58)
    out.add_token_merges(["a b"])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)

    def tensor(name: str, *shape: int) -> None:
        out.add_tensor(name, rng.normal(scale=0.2, size=shape).astype(np.float32))

    tensor("token_embd.weight", 61, 32)
    tensor("output.weight", 61, 32)
    tensor("output_norm.weight", 32)
    for block in range(2):
        for name, shape in {
            "attn_norm": (32,), "ffn_norm": (32,), "attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32),
            "attn_output": (32, 32), "ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48),
        }.items():  # fmt: skip
            tensor(f"blk.{block}.{name}.weight", *shape)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.mark.parametrize(
    ("architecture", "wanted", "used"),
    [("llama", "sdpa", PACKED), ("llama", "eager", "eager"), ("gemma2", "sdpa", "eager")],
)
def test_attention_is_as_asked_where_the_architecture_has_it(
    checkpoint: Checkpoint, architecture: str, wanted: str, used: str
) -> None:
    for from_scratch in (False, True):
        language_model = open_model(checkpoint(architecture), attention=wanted, from_scratch=from_scratch)
        assert language_model.causal.config._attn_implementation == used

"""Model files to a `LanguageModel` in memory, and back to bytes."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL_TARGETS
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from curate.errors import ModelError
from curate.models import adapters
from curate.models.base import LoraSettings, ModelConfig
from curate.models.device import pick_device, pick_dtype
from curate.models.language_model import LanguageModel, Origin, body_of, causal_model, check_ids, has_plain_head
from curate.models.packing import can_pack
from curate.models.probes import check_rows
from curate.models.recomputing import recompute_blocks
from curate.models.resolve import resolve_tokenizer
from curate.models.tokenizer_files import is_tokenizer_file

__all__ = ["LanguageModel", "check_ids", "files", "load"]

RECORD = "proxy.json"
"""Marks a directory made of `files`; a checkpoint from elsewhere has none."""
ADAPTER = "adapter_model.safetensors"
NO_FOLDER = "no adapter unasked"
"""Where transformers looks for an adapter to load with the weights: in a folder that is not there."""
FEW, LOGITS = 24, 1 << 26
"""Tokens of a row, and logits of one, that are tried where the head is more than one layer."""


def load(
    path: Path, *, config: ModelConfig, seed: int, tokenizer: Path | None = None, adapter: Path | None = None
) -> LanguageModel:
    """Load a model for measuring losses and gradients: eval mode, on the best device, dtype by that device.

    Args:
        path: what `resolve` returned, or a directory holding what `files` returned.
        config: the `model:` section.
        seed: seed of random weights: all of them with `from_scratch`, the adapters with `lora`.
        tokenizer: local directory of the tokenizer; by default `config.tokenizer`, else the model's own.
        adapter: directory of a trained adapter to merge, as `resolve` returned it; not asked for what `files` returned.

    Raises:
        ModelError: weights, configuration and tokenizer do not make a usable model.
    """
    disable_progress_bar()
    record = _read_record(path)
    origin = Origin(path, tokenizer or path, seed)
    if record is None:
        origin = Origin(path, tokenizer or resolve_tokenizer(config, path, adapter), seed, adapter)
    elif record["adapter"]:  # its base was not written: it is made again, from the same file and seed
        trained_one = Path(record["merged"]) if "merged" in record else None
        origin = Origin(Path(record["base"]), tokenizer or path, record["seed"], trained_one)
    scratch = config.from_scratch and (record is None or record["adapter"])
    causal = _causal(origin.path, config, seed=origin.seed if scratch else None)
    causal = adapters.merged(causal, origin.adapter) if origin.adapter else causal
    model = _with_adapters(causal, config.lora, origin.seed) if config.lora else causal
    if isinstance(model, PeftModel) and record is not None:
        _restore_adapters(model, path / ADAPTER)
    return _assemble(model, origin, config)


def files(language_model: LanguageModel) -> dict[str, bytes]:
    """The model as files: what `load` reads back, by file name.

    A model with adapters gives the adapters and the place of their base; any other gives all weights. Tied
    weights are written once.
    """
    model, origin = language_model.model, language_model.origin
    record = {"adapter": language_model.has_lora, "base": str(origin.path), "seed": origin.seed}
    if origin.adapter is not None:
        record["merged"] = str(origin.adapter)
    out = {RECORD: _json(record)} | _tokenizer_files(language_model)
    if isinstance(model, PeftModel):
        out["adapter_config.json"] = _json(model.peft_config["default"].to_dict())
        out[ADAPTER] = _tensors(get_peft_model_state_dict(model, save_embedding_layers=False))
        return out
    out["config.json"] = model.config.to_json_string().encode()
    out["model.safetensors"] = _tensors(model.state_dict())
    return out


def trained(language_model: LanguageModel) -> bytes:
    """What is trained of a model, as a safetensors file that `restore` reads back."""
    return _tensors({name: each for name, each in language_model.causal.named_parameters() if each.requires_grad})


@torch.no_grad()
def restore(language_model: LanguageModel, path: Path) -> None:
    """Put what `trained` gave, from its file, into a model of the same kind. Raises ModelError."""
    try:
        found = safetensors.torch.load(path.read_bytes())
        for name, parameter in language_model.causal.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(found[name])
    except (SafetensorError, KeyError, RuntimeError) as error:
        fix = "Remove the file: its training is repeated."
        raise ModelError(str(path), str(error), "the parameters of this model", fix) from error


def _causal(path: Path, config: ModelConfig, *, seed: int | None) -> PreTrainedModel:
    """The Hugging Face model on the CPU; random if a seed is given."""
    options: dict[str, Any] = {
        "dtype": pick_dtype(config.dtype, pick_device()),
        # Unset means sdpa where the architecture has it; asked for by name it would be an error elsewhere (Gemma 2).
        "attn_implementation": "eager" if config.attention == "eager" else None,
    }
    try:
        if seed is not None:
            place = {"gguf_file": path.name} if path.is_file() else {"local_files_only": True}
            architecture = AutoConfig.from_pretrained(path.parent if path.is_file() else path, **place)
            return _from_config(architecture, options, seed)
        if path.is_file():
            return _from_gguf(path, options)
        model, info = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            path,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused by name below
            adapter_kwargs={"subfolder": NO_FOLDER},
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(
            str(path),
            f"{type(error).__name__}: {_first_line(error)}",
            "a causal language model this version of transformers can load",
            "Check that it is a complete checkpoint of a supported architecture, or choose another model.",
        ) from error
    _refuse_partial(path, info)
    return model


def _from_config(config: PreTrainedConfig, options: dict[str, Any], seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):  # drawn on the CPU, so the same on every device
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, **options)


def _from_gguf(path: Path, options: dict[str, Any]) -> PreTrainedModel:
    """Dequantise into a fresh model: the loaded one counts as quantised and can be neither trained nor saved."""
    with contextlib.redirect_stderr(io.StringIO()):  # transformers draws a progress bar of its own here
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)
    config = type(loaded.config).from_dict(
        {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    )
    clean = _from_config(config, options, seed=0)
    clean.load_state_dict(loaded.state_dict())
    return clean


def _refuse_partial(path: Path, info: dict[str, Any]) -> None:
    """transformers fills weights that the files lack with random numbers and only warns."""
    mismatched = (key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
    absent = sorted((*info["missing_keys"], *mismatched))
    if absent:
        raise ModelError(
            str(path),
            f"no usable weights for {len(absent)} parameters, first {absent[0]}",
            "every parameter of the architecture named in config.json",
            "Use the complete checkpoint, or the config.json that belongs to these weights.",
        )


def _with_adapters(causal: PreTrainedModel, lora: LoraSettings, seed: int) -> PeftModel:
    targets = lora.targets or USUAL_TARGETS.get(causal.config.model_type, "all-linear")
    adapters = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        task_type="CAUSAL_LM",
        fan_in_fan_out=causal.config.model_type == "gpt2",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(causal, adapters)  # pyright: ignore[reportReturnType]
    except ValueError as error:
        names = sorted({name.rsplit(".", 1)[-1] for name, _ in causal.named_modules() if name})
        raise ModelError(
            "model.lora.targets",
            str(targets),
            f"names of linear layers of {type(causal).__name__}",
            f"Choose among its layers: {', '.join(name for name in names if not name.isdigit())}.",
        ) from error


def _restore_adapters(model: PeftModel, path: Path) -> None:
    try:
        state = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise ModelError(
            str(path),
            _first_line(error),
            "the adapters written with this proxy",
            "Restore the file, or start a new run.",
        ) from error
    expected = {name: tensor.shape for name, tensor in get_peft_model_state_dict(model).items()}
    if expected != {name: tensor.shape for name, tensor in state.items()}:
        raise ModelError(
            str(path),
            "adapters of other names or shapes",
            f"the {len(expected)} adapter tensors that `model.lora` describes",
            "Use the `lora` settings the adapters were made with, or start a new run.",
        )
    set_peft_model_state_dict(model, state)


def _assemble(model: PreTrainedModel | PeftModel, origin: Origin, config: ModelConfig) -> LanguageModel:
    device = pick_device()
    model = model.to(device).eval()  # pyright: ignore[reportArgumentType]
    causal = causal_model(model)
    longest = getattr(causal.config, "max_position_embeddings", None)
    if longest is not None and 0 < longest < config.max_tokens:
        raise ModelError(
            "model.max_tokens",
            str(config.max_tokens),
            f"at most {longest}, the positions of {config.name}",
            f"Set model.max_tokens to {longest} or less.",
        )
    tokenizer = load_tokenizer(origin.tokenizer)
    vocab = int(causal.get_input_embeddings().weight.shape[0])  # pyright: ignore
    # Without added tokens: repositories with a padding token the model has no embedding for are common and harmless.
    check_ids(torch.tensor([tokenizer.vocab_size - 1]), vocab, where=str(origin.tokenizer))
    body = body_of(causal)
    check_rows(causal, body, config.max_tokens)
    plain = has_plain_head(causal)
    if not plain:  # what comes after the body may mix rows too
        check_rows(causal, causal, min(config.max_tokens, max(FEW, LOGITS // vocab)))
    packs = can_pack(causal, body, config.max_tokens)
    language_model = LanguageModel(model, tokenizer, device, vocab, origin, plain, packs)
    if config.gradient_checkpointing:
        recompute_blocks(causal)
    return language_model


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or GGUF file. Raises ModelError."""
    try:
        if path.is_file():
            return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        return AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            str(path),
            f"no usable tokenizer ({_first_line(error)})",
            "tokenizer.json and tokenizer_config.json",
            "Set `model.tokenizer` to a directory or Hub id that has them.",
        ) from error


def _tokenizer_files(language_model: LanguageModel) -> dict[str, bytes]:
    source, tokenizer = language_model.origin.tokenizer, language_model.tokenizer
    if source.is_dir():
        return {file.name: file.read_bytes() for file in sorted(source.iterdir()) if is_tokenizer_file(file.name)}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    }
    return {
        "tokenizer.json": tokenizer.backend_tokenizer.to_str().encode(),  # pyright: ignore
        "tokenizer_config.json": _json(settings),
    }


def _tensors(state: dict[str, Tensor]) -> bytes:
    """Tensors as safetensors, each piece of memory once: a tied weight is written under its first name."""
    seen: set[tuple[int, torch.Size]] = set()
    unique: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen:
            seen.add(place)
            unique[name] = tensor.detach().cpu().contiguous()
    return safetensors.torch.save(unique, metadata={"format": "pt"})


def _read_record(path: Path) -> dict[str, Any] | None:
    record = path / RECORD
    return json.loads(record.read_text()) if path.is_dir() and record.is_file() else None


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, default=sorted) + "\n").encode()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

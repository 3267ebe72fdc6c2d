"""Finding a model's files, and refusing what cannot be loaded whole and safely."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled

from curate.errors import ModelError
from curate.models import resolve as room
from curate.models.base import ModelConfig
from curate.models.resolve import resolve

Checkpoint = Callable[..., Path]


def find(name: Path | str, **settings: object) -> room.Resolved:
    return resolve(ModelConfig.model_validate({"name": str(name)} | settings))


def test_directory_is_hashed_file_by_file(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    found = find(directory)
    assert (found.path, found.kind, found.revision, found.tokenizer) == (
        directory,
        "directory",
        None,
        directory,
    )
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found.sha256.keys()
    data = (directory / "model.safetensors").read_bytes()
    assert found.sha256["model.safetensors"] == hashlib.sha256(data).hexdigest()


def test_separate_tokenizer_is_hashed_too(checkpoint: Checkpoint) -> None:
    model, other = checkpoint("llama"), checkpoint("gpt2")
    (model / "tokenizer.json").unlink()
    found = find(model, tokenizer=str(other))
    assert found.tokenizer == other
    assert "tokenizer/tokenizer.json" in found.sha256


def test_sharded_checkpoint_needs_every_listed_file(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    (directory / "model.safetensors").rename(directory / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors"}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": parts}))
    assert {index.name, parts["a"]} <= find(directory).sha256.keys()
    index.write_text(json.dumps({"weight_map": parts | {"b": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(ModelError, match=r"`model-00002-of-00002.safetensors` listed, but not in the directory"):
        find(directory)


def test_config_without_weights_says_from_scratch(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama", weights=False)
    with pytest.raises(ModelError, match=r"a model without weights.*model\.from_scratch: true"):
        find(directory)
    found = find(directory, from_scratch=True)
    assert found.kind == "scratch"
    assert "config.json" in found.sha256


def test_pickled_weights_are_refused_with_the_conversion_command(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama", weights=False)
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\).*save_pretrained"):
        find(directory)


@pytest.mark.parametrize(
    ("file", "model_type", "fix"),
    [
        ("config.json", "llama", "transformers has llama built in"),
        ("config.json", "strange", "Choose a model"),
        ("tokenizer_config.json", "llama", "auto_map"),
    ],
)
def test_repositories_with_own_code_are_refused(checkpoint: Checkpoint, file: str, model_type: str, fix: str) -> None:
    directory = checkpoint("llama")
    settings = json.loads((directory / file).read_text())
    settings |= {"model_type": model_type, "auto_map": {"AutoModelForCausalLM": "code.Model"}}
    (directory / file).write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=rf"{file}.*wants to run its own code.*{fix}"):
        find(directory)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda data: data[:-10], "bytes; expected the"),
        (lambda data: data + b"\0" * 10, "bytes; expected the"),
        (lambda data: data[:4], "no readable header"),
        (lambda data: b"", "no readable header"),
        (lambda data: (10**12).to_bytes(8, "little") + data[8:], "no readable header"),
        (lambda data: data[:8] + b"[" + data[9:], "no readable header"),
    ],
)
def test_damaged_safetensors_are_refused(checkpoint: Checkpoint, damage: Callable[[bytes], bytes], found: str) -> None:
    file = checkpoint("llama") / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ModelError, match=rf"model\.safetensors: found .*{found}"):
        find(file.parent)


@pytest.mark.parametrize("name", ["./no/such/place", "/no/such/place", "missing.gguf", "a/b/c"])
def test_names_that_are_nothing_are_refused_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="nothing there"):
        find(name)


def test_directory_without_config_or_tokenizer_is_refused(checkpoint: Checkpoint) -> None:
    directory = checkpoint("llama")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (directory / file).unlink()
    with pytest.raises(ModelError, match=r"no tokenizer files.*model.tokenizer"):
        find(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config.json"):
        find(directory)


def test_hub_id_without_network_or_cache_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr(room.HfApi, "model_info", offline)
    monkeypatch.setattr(room, "snapshot_download", lambda name, **options: _not_cached(options))
    with pytest.raises(ModelError, match=r"owner/model: .*no answer from the Hub \(no network\)"):
        find("owner/model")


def test_hub_id_is_resolved_to_one_commit(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = checkpoint("llama")
    commit = "c" * 40
    snapshot = directory.rename(directory.with_name(commit))
    asked: list[dict[str, object]] = []

    class Info:
        sha = commit
        siblings = ()

    def download(name: str, **options: object) -> str:
        asked.append(options)
        return str(snapshot)

    monkeypatch.setattr(room, "_refuse_absent_weights", lambda where, names: None)
    monkeypatch.setattr(room.HfApi, "model_info", lambda self, name, revision: Info)
    monkeypatch.setattr(room, "snapshot_download", download)
    found = find("owner/model", revision="main")
    assert (found.revision, found.path) == (commit, snapshot)
    assert asked[0]["revision"] == commit
    assert not any(str(pattern).endswith((".bin", ".py")) for pattern in asked[0]["allow_patterns"])  # pyright: ignore


def _not_cached(options: dict[str, object]) -> None:
    if not options["local_files_only"]:
        pytest.fail("the network was asked again")
    raise room.LocalEntryNotFoundError("not in the cache")

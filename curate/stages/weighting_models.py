"""Weighting models as files: that of another run, and that of this one on a worker, with the proxy whose losses it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from curate.errors import ModelError
from curate.methods.batch import Tensors
from curate.methods.dwm_loop import below, of_stage
from curate.methods.weighting_model import Readings, Vocabulary, WeightingModel, known_from, read, restored
from curate.models import loading, tensor_file
from curate.models.language_model import LanguageModel
from curate.models.losses import sample_losses
from curate.models.pair import in_float32
from curate.runs.job import Job
from curate.stages import proxy_states
from curate.storage.fingerprint import fingerprint, sha256_file
from curate.types import Batch

KIND = "curate weighting model 1"


@dataclass(frozen=True)
class Weigher:
    """A proxy and the weighting model that reads its losses.

    Attributes:
        language_model: the proxy as the training left it.
        network: the weighting model of the last stage.
        known: what it knows of tokens.
    """

    language_model: LanguageModel
    network: WeightingModel
    known: Vocabulary | None

    @torch.no_grad()
    def readings(self, batch: Batch) -> Readings:
        """What is read of a batch; one forward pass."""
        return read(batch, sample_losses(self.language_model, batch), self.known)


def encoded(weigher: Tensors, language_model: LanguageModel) -> bytes:
    """A weighting model as a file, with what its tokens are named by."""
    return tensor_file.encode(weigher, {"kind": KIND, "tokens": _tokens(language_model)})


def stored(job: Job, language_model: LanguageModel) -> Tensors | None:
    """The weighting model that the method names, if it names one. Raises ModelError if it reads other tokens."""
    given = job.record.weigher
    if given is None:
        return None
    path = Path(given["path"])
    if not path.is_file() or sha256_file(path) != given["sha256"]:
        raise ModelError(str(path), "missing, or changed since this run began", "the weighting model", "Restore it.")
    tensors, words = tensor_file.decode(path.read_bytes(), str(path))
    if words.get("kind") != KIND:
        fix = "Name state/twin/weigher.safetensors of a run with method dwm."
        raise ModelError(str(path), words.get("kind", "no kind"), KIND, fix)
    _refuse_partial(tensors, path)
    if len(tensors["vocabulary/surprise"]) and words.get("tokens") != _tokens(language_model):
        fix = "Use it with a model of the same tokenizer, or learn one with method.loop.embedding: none."
        raise ModelError(str(path), "embeddings of another tokenizer's tokens", "those of model.tokenizer", fix)
    return tensors


def load(job: Job, stage: str, index: int, directory: Path) -> Weigher:
    """What a task left in a directory, loaded once a worker. Raises IntegrityError, ModelError."""

    def load() -> Weigher:
        proxy, weigher = proxy_states.trained(job, stage, index, directory, "proxy", "weigher")
        language_model = proxy_states.anew(job)
        in_float32(language_model)
        loading.restore(language_model, proxy)
        tensors, _ = tensor_file.decode(weigher.read_bytes(), str(weigher))
        network = restored(below(tensors, "now/")).to(language_model.device)
        known = known_from(below(tensors, "vocabulary/"))
        return Weigher(language_model, network, known and known.to(language_model.device))

    return proxy_states.only(proxy_states.left_by(job, stage, index), load)


def _refuse_partial(tensors: Tensors, path: Path) -> None:
    try:
        for stage in range(1, int(tensors["stages"])):
            restored(of_stage(tensors, stage))
        known_from(below(tensors, "vocabulary/"))
    except (KeyError, RuntimeError, ValueError) as error:
        fix = "Name the complete file that a run with method dwm wrote."
        raise ModelError(
            str(path), f"an incomplete weighting model ({str(error)[:120]})", "all its tensors", fix
        ) from error


def _tokens(language_model: LanguageModel) -> str:
    """Which token has which number."""
    return fingerprint(sorted(language_model.tokenizer.get_vocab().items()))

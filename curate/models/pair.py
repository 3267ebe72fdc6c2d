"""A proxy and its reference on one base: what is trained of both, everything else once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from curate.models import loading
from curate.models.language_model import LanguageModel
from curate.models.losses import batch_token_losses
from curate.models.twin import Twin
from curate.types import Batch


@dataclass(frozen=True)
class Pair:
    """Two models of one architecture that predict the same batches.

    Attributes:
        language_model: the proxy u.
        reference: what is trained of the reference w.
    """

    language_model: LanguageModel
    reference: Twin

    @torch.no_grad()
    def excess(self, batch: Batch) -> Tensor:
        """l(u) - l(w) of every token [b, t], in nats, on the model's device; two forward passes, no graph.

        0 where `Batch.predicted` is not. Raises ModelError for a token that the model has not.
        """
        proxy = batch_token_losses(self.language_model, batch)
        with self.reference.active():
            return proxy - batch_token_losses(self.language_model, batch)


def load_pair(language_model: LanguageModel, *, reference: Path, proxy: Path | None = None) -> Pair:
    """The pair of a model and a file.

    Args:
        language_model: the proxy, or with `proxy` any model of its kind; what is trained of it is brought to float32.
        reference: what `loading.trained` gave of the reference.
        proxy: what it gave of the proxy; by default the proxy is the model as it is.

    Raises:
        ModelError: a file is not of such a model.
    """
    in_float32(language_model)
    twin = Twin({name: each for name, each in language_model.causal.named_parameters() if each.requires_grad})
    with twin.active():
        loading.restore(language_model, reference)
    if proxy is not None:
        loading.restore(language_model, proxy)
    return Pair(language_model, twin)


def in_float32(language_model: LanguageModel) -> None:
    """Bring what is trained of a model to float32, in place: most steps of AdamW are smaller than bfloat16 can tell."""
    for parameter in language_model.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()

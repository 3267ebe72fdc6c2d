"""Gradient features: the projected gradient of every sample of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from curate.gradients.capture import capture
from curate.gradients.preconditioner import Preconditioner
from curate.gradients.projection import ProjectionSettings, add_layer, empty_sketch, fold, layer_sketch
from curate.models.language_model import LanguageModel
from curate.types import Batch

SLAB_BYTES = 8 * 2**20


def features(
    language_model: LanguageModel,
    batch: Batch,
    *,
    projection: ProjectionSettings,
    preconditioner: Preconditioner | None = None,
) -> tuple[Tensor, Tensor]:
    """Projected gradients of the samples of a batch.

    Each is the gradient of the sample's own mean token loss with respect to the block linears (with adapters:
    the adapters), optionally turned into Adam's direction, projected and summed over layers. A layer's
    gradients exist a few samples at a time and are gone before the next layer's.

    Args:
        language_model: model in eval mode.
        batch: rows [b, t].
        projection: kind, k and seed.
        preconditioner: moments for Adam's direction, or None for plain gradients.

    Returns:
        Features [b, k] and mean token losses [b], both float32 on the model's device. A sample without a
        labelled token has loss 0 and gradient 0.

    Raises:
        ModelError: the model has layers whose per-sample gradients cannot be read.
    """
    sketch = empty_sketch(len(batch.ids), projection, language_model.device)

    def consume(name: str, inputs: Tensor, gradients: Tensor) -> None:
        size = inputs.shape[-1] * gradients.shape[-1]
        choices = layer_sketch(name, size, projection)  # pyright: ignore[reportArgumentType]  # frozen, so hashable
        at_once = max(1, SLAB_BYTES // (4 * size))
        for rows in zip(sketch.split(at_once), inputs.split(at_once), gradients.split(at_once), strict=True):
            flat = layer_gradients(rows[1], rows[2]).flatten(1)
            add_layer(rows[0], flat if preconditioner is None else preconditioner.direct(name, flat), choices)

    losses = capture(language_model, batch, consume)
    return fold(sketch), losses.float()


def layer_gradients(inputs: Tensor, gradients: Tensor) -> Tensor:
    """G_i = B_i^T A_i, in float32.

    Args:
        inputs: A, [b, t, d_in].
        gradients: B, [b, t, d_out].

    Returns:
        [b, d_out, d_in], the orientation of `nn.Linear.weight`.
    """
    return torch.bmm(gradients.float().transpose(1, 2), inputs.float())

"""Gradient features: the projected gradient of every sample of a batch."""

from __future__ import annotations

from torch import Tensor

from curate.gradients.base import ProjectionSettings
from curate.gradients.capture import capture
from curate.gradients.factorised import FactorisedProjector
from curate.gradients.preconditioner import Preconditioner
from curate.gradients.projection import SketchProjector
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS, captured_layers, weight_owners
from curate.types import Batch

PROJECTORS = {"countsketch": SketchProjector, "factorised": FactorisedProjector, "concat": FactorisedProjector}


def features(
    language_model: LanguageModel,
    batch: Batch,
    *,
    projection: ProjectionSettings,
    layers: LayerSettings = ALL_BLOCKS,
    preconditioner: Preconditioner | None = None,
) -> tuple[Tensor, Tensor]:
    """Projected gradients of the samples of a batch.

    Each is the gradient of the sample's own mean token loss with respect to the chosen layers (with adapters:
    their adapters), optionally turned into Adam's direction, projected and brought together over layers. A layer's
    gradients are gone before the next layer's.

    Args:
        language_model: model in eval mode.
        batch: rows [b, t].
        projection: kind, size and seed.
        layers: which layers.
        preconditioner: moments for Adam's direction, or None for plain gradients. `countsketch` takes it exactly;
            the others with a second moment of rank one.

    Returns:
        Features [b, k] and mean token losses [b], both float32 on the model's device. A sample without a
        labelled token has loss 0 and gradient 0.

    Raises:
        ModelError: the model has layers whose per-sample gradients cannot be read.
    """
    chosen = captured_layers(language_model, layers)
    projector = PROJECTORS[projection.kind](
        projection, chosen, len(batch.ids), device=language_model.device, preconditioner=preconditioner
    )
    losses = capture(language_model, batch, projector.add, layers=chosen)
    return projector.features(), losses.float()


def width(language_model: LanguageModel, projection: ProjectionSettings, layers: LayerSettings = ALL_BLOCKS) -> int:
    """Numbers k stored per sample."""
    return projection.width(len(set(weight_owners(captured_layers(language_model, layers)).values())))

"""Gradients of single samples of the model that trains, under the metric of its own optimizer."""

from __future__ import annotations

from torch import Tensor

from curate.gradients.along import mean_gradient
from curate.gradients.candidates import Candidates, candidates
from curate.gradients.metric import Optimizer, metrics
from curate.methods.batch import Reading
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers
from curate.types import Batch


class MeasuredGradients:
    """Implements `weights.batch.SampleGradients`.

    Args:
        language_model: the model.
        optimizer: what trains it; its state is read anew for every batch.
    """

    def __init__(self, language_model: LanguageModel, optimizer: Optimizer | None) -> None:
        self._model, self._optimizer = language_model, optimizer

    def mean(self, batch: Batch, reading: Reading) -> dict[str, Tensor]:
        """Mean gradient of a batch's samples [d_out, d_in] by layer. Raises ModelError."""
        return mean_gradient(self._model, [batch], layers=reading.layers)

    def candidates(self, batch: Batch, reading: Reading, direction: dict[str, Tensor] | None) -> Candidates:
        """A batch to choose from. Raises ModelError."""
        layers = captured_layers(self._model, reading.layers)
        found = metrics(self._optimizer if reading.power else None, layers)
        return candidates(
            self._model,
            batch,
            metrics=found if reading.exact else {name: metric.factored() for name, metric in found.items()},
            power=reading.power,
            direction=direction,
            gram=reading.gram,
            layers=reading.layers,
            kept_bytes=reading.kept_bytes,
            read=reading.share,
        )

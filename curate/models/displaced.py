"""Other numbers in the place of a model's parameters for a moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def displaced(parameters: Mapping[str, nn.Parameter], point: Mapping[str, Tensor]) -> Iterator[None]:
    """The model computes with `point`; the tensors it had are set aside, never written to, and set back whatever happens.

    Args:
        parameters: of the model, by name; no graph of theirs may be waiting for its backward pass.
        point: tensors of the same shapes, by the same names.
    """
    kept = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = point[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]

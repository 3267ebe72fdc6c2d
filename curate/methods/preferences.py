"""What a weighting model came to prefer: weight and loss of the same rows of the pool in every stage of a training.

Rows are noted when they are trained on, so that nothing is computed for it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from curate.methods.batch import Tensors

ROWS = 4096
"""Rows that are followed; a smaller pool is followed whole."""


class Preferences:
    """Weights [s, m] and losses [s, m] of m rows by stage, NaN where a row was not met; their tokens [m].

    Args:
        rows: of the pool.
        stages: s.
        seed: decides which rows are followed.
    """

    def __init__(self, rows: int, stages: int, *, seed: int) -> None:
        chosen = np.random.default_rng([seed, 11]).choice(rows, min(rows, ROWS), replace=False)
        self.rows = np.sort(chosen).astype(np.int64)
        self._kept = {
            "weight": torch.full((stages, len(self.rows)), torch.nan),
            "loss": torch.full((stages, len(self.rows)), torch.nan),
            "tokens": torch.zeros(len(self.rows), dtype=torch.int64),
        }

    def note(self, stage: int, rows: tuple[int, ...], weights: Tensor, losses: Tensor, tokens: Tensor) -> None:
        """Take down a batch: its rows, and three numbers of each on the CPU [b]."""
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        followed = self.rows[places] == np.asarray(rows)
        at, of = torch.from_numpy(places[followed]), torch.from_numpy(followed)
        self._kept["weight"][stage, at] = weights[of].float()
        self._kept["loss"][stage, at] = losses[of].float()
        self._kept["tokens"][at] = tokens[of].long()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        return {name: value.clone() for name, value in self._kept.items()}

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self._kept = {name: state[name].clone() for name in self._kept}

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as named arrays."""
        return {"row": self.rows, **{name: value.numpy().copy() for name, value in self._kept.items()}}

"""A method that learns a model of the weights: train proxy and weighting model, keep both, and any row is weighed by them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from curate.methods.base import State
from curate.methods.dwm import Dwm
from curate.methods.dwm_loop import DwmLoop
from curate.methods.settings import LoopSettings
from curate.methods.weighting_model import Readings, WeightingModel, joined, logits_in_company
from curate.training.loop import LoopProblem, Training
from curate.training.paired import PairWeights

MEASURED = 1024
"""Rows of the pool that weights are brought to mean 1 on; a smaller pool is read once."""
COMPANY = 64
"""Rows of the pool in whose company every row is weighed."""


class Modelled:
    """The adapter: `fit` trains, `weigh` turns what is read of a shard's rows into weights.

    Args:
        method: the method.
        settings: of the training.
        seed: of the weighting model.
    """

    reads: tuple[str, ...] = ()
    needs_target = True

    def __init__(self, method: Dwm, settings: LoopSettings, seed: int) -> None:
        self._method, self._settings, self._seed = method, settings, seed

    def fit(self, problem: LoopProblem) -> State:
        """Train both models, hand them over, and measure what they make of the pool. Raises DataError, ModelError."""
        training, weigher = self.begin(problem)
        training.run()
        state, _ = self.finish(problem, weigher)
        return {**state, "tokens": np.array(training.tokens)}

    def begin(self, problem: LoopProblem) -> tuple[Training, DwmLoop]:
        """A training that has not taken a step, and the method in its loop."""
        weigher = self._method.batch_weigher(problem.length, seed=self._seed, stored=problem.stored_weigher())
        return Training(problem, weigher, self._settings), weigher

    def finish(self, problem: LoopProblem, weigher: DwmLoop, rows: int = MEASURED) -> tuple[State, Tensor]:
        """Hand both models over, and read so many rows of the pool: what `weigh` needs, and their losses [n]."""
        weigher.finish()
        measured = self._measured(problem, weigher, rows)
        problem.keep_weigher(weigher.kept())
        company = Readings(*(value[:COMPANY] for value in vars(measured).values()))
        state = {f"company/{name}": value.cpu().numpy() for name, value in vars(company).items()}
        logits = logits_in_company(weigher.network, measured, company).cpu()
        state |= self._method.calibrate(logits)
        state |= {f"preferences/{name}": value for name, value in weigher.preferences.arrays().items()}
        share, scale = self._method.shares(state, logits), float(state["calibration"][0])
        problem.note(f"effective share {share:.4f} of {len(logits)} rows (logits scaled by {scale:.3f})")
        return state, measured.losses.cpu()

    def weigh(self, state: State, network: WeightingModel, rows: Readings) -> PairWeights:
        """Weights of rows by what is read of them [n]."""
        company = {name: torch.from_numpy(state[f"company/{name}"]) for name in Readings.__annotations__}
        here = Readings(**{name: value.to(rows.losses.device) for name, value in company.items()})
        return PairWeights(self._method.weigh(state, logits_in_company(network, rows, here).cpu()))

    def _measured(self, problem: LoopProblem, weigher: DwmLoop, rows: int) -> Readings:
        """What is read of a random sample of the pool's rows."""
        stream, found = problem.others(self._settings.batch_tokens, alike=False), list[Readings]()
        while stream.place.turn == 0 and stream.place.rows < rows:
            found.append(weigher.readings(next(stream)))
        return joined(found)

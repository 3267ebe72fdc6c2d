"""A method with the model in the loop as a method of the pool: train the proxy with the weigher, keep what it learned.

Everything that a step changes is in one state, which is kept from time to time: a training that was interrupted goes on from
there and ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from curate.bilevel.feasible import effective_share, softmax_weights, tempered
from curate.errors import ModelError
from curate.methods.base import State, on_valid_rows
from curate.methods.batch import BatchWeigher, Learner, Tensors
from curate.methods.settings import LoopSettings
from curate.models.descent import Descent
from curate.models.language_model import LanguageModel
from curate.models.twin import Twin
from curate.models.warmup import learning_rate_factor
from curate.training.measured import MeasuredGradients
from curate.training.stream import Place, Stream
from curate.types import Batch, Features


class LoopProblem(Protocol):
    """A pool, its targets and a proxy to train, as the loop sees them."""

    @property
    def length(self) -> int:
        """Number of rows of the pool, those set aside included."""
        ...

    @property
    def starts(self) -> np.ndarray:
        """First row of every shard, int64."""
        ...

    @property
    def language_model(self) -> LanguageModel:
        """The proxy, for this training alone; its trained parameters are float32 or wider."""
        ...

    def pool(self, batch_tokens: int) -> Stream:
        """Batches of the pool."""
        ...

    def others(self, batch_tokens: int, *, alike: bool = True) -> Stream:
        """Batches of the pool in an order of their own, beside those that the model is trained on.

        Args:
            batch_tokens: tokens of a batch.
            alike: rows of like length in a batch, or as they are drawn.
        """
        ...

    def targets(self, batch_tokens: int) -> Sequence[Stream]:
        """Batches of each named target."""
        ...

    def losses(self, batch: Batch) -> Tensor:
        """Loss of every sample of a batch of the pool or of a target [len(rows)], in nats, differentiable."""
        ...

    def token_losses(self, batch: Batch) -> Tensor:
        """Loss of every token [b, t], in nats, 0 where none is taken, differentiable."""
        ...

    def turn(self, turn: int, step: int, logits: Callable[[], Tensor]) -> None:
        """Called before the first step of every pass over the pool, and before the first after an interruption.

        Args:
            turn: number of the pass, from 0.
            step: steps that were taken.
            logits: what was learned of every row so far (`BatchWeigher.logits`).
        """
        ...

    def kept(self) -> Tensors | None:
        """The state that an interrupted training left, if there is one."""
        ...

    def keep(self, state: Callable[[], Tensors]) -> None:
        """Offered after every step: keep the state if it is time to."""
        ...

    def keep_weigher(self, weigher: Tensors) -> None:
        """Called once the training is over, if the proxy and a weighting model are to weigh rows."""
        ...

    def stored_weigher(self) -> Tensors | None:
        """A weighting model that is there already and only to be used, if there is one. Raises ConfigError, ModelError."""
        ...

    def keep_pair(self, reference: Twin) -> None:
        """Called once the training is over, if both models are to weigh rows."""
        ...

    def note(self, text: str) -> None:
        """Tell the user how the training is going."""
        ...

    def advance(self, rows: int) -> None:
        """Tell the user that so many more rows were trained on."""
        ...


class Looped:
    """The adapter: `fit` trains, `weigh` looks up.

    Args:
        make: the weigher for a pool of so many rows.
        settings: of the training.
        share: least effective share of the weights: logits are tempered until they have it; None leaves them.
        needs_target: whether the weigher takes targets.
    """

    reads: tuple[str, ...] = ()

    def __init__(
        self,
        make: Callable[[int], BatchWeigher],
        settings: LoopSettings,
        *,
        share: float | None,
        needs_target: bool = True,
    ) -> None:
        self._make, self._settings, self._share = make, settings, share
        self.needs_target = needs_target

    def fit(self, problem: LoopProblem) -> State:
        """Train, and keep a weight of every row that can be trained on. Raises DataError, ModelError."""
        weigher = self._make(problem.length)
        training = Training(problem, weigher, self._settings)
        visits = training.run()
        weights = np.full(problem.length, np.nan)
        weights[visits] = self._weights(weigher.logits()[torch.from_numpy(visits)], problem).numpy()
        return {"weights": weights, "starts": problem.starts.astype(np.int64), "tokens": np.array(training.tokens)}

    def weigh(self, state: State, features: Features) -> Tensor:
        """Weights of one shard, float64 [n], NaN where not valid or without a token to predict."""
        start = int(state["starts"][features.shard])
        weights = torch.from_numpy(state["weights"][start : start + features.rows])
        return on_valid_rows(features, weights[features.valid])

    def _weights(self, logits: Tensor, problem: LoopProblem) -> Tensor:
        raw = float(effective_share(softmax_weights(logits)))
        weights = softmax_weights(logits if self._share is None else tempered(logits, self._share))
        final = float(effective_share(weights))
        problem.note(f"effective share {final:.4f} of {len(logits)} samples ({raw:.4f} before tempering)")
        return weights


class Training:
    """One training of a proxy with a weigher; `step` steps and `tokens` of the pool were trained on so far.

    Args:
        problem: pool, targets and proxy.
        weigher: the method.
        settings: of the training.
    """

    def __init__(self, problem: LoopProblem, weigher: BatchWeigher, settings: LoopSettings) -> None:
        self._problem, self._weigher, self._settings = problem, weigher, settings
        model = problem.language_model
        parameters = {name: each for name, each in model.causal.named_parameters() if each.requires_grad}
        self._descent = Descent(parameters, betas=(settings.beta1, settings.beta2))
        self._pool = problem.pool(settings.batch_tokens)
        self._others = problem.others(settings.batch_tokens, alike=settings.alike)
        self._targets = problem.targets(settings.target_budget)
        self._turn, self.step, self.tokens, self._rate = 0, 0, 0, settings.learning_rate
        self._visits = np.zeros(problem.length, bool)
        self._rows = settings.passes * problem.length
        self._learner = Learner(
            parameters,
            problem.losses,
            lambda: self._rate,
            model.device,
            problem.token_losses,
            MeasuredGradients(model, self._descent.optimizer),
            lambda: model.causal.get_input_embeddings().weight,  # pyright: ignore[reportArgumentType]
            self._descent,
        )
        weigher.begin(self._learner, self._target_batches(), self._others)

    def run(self, until: float = 1.0) -> np.ndarray:
        """Train until so much of it is done. Returns which rows of the pool were trained on, bool [N].

        Raises:
            DataError: there is nothing to train on.
            ModelError: the training diverged.
        """
        found = self._problem.kept()
        if found is not None and int(found["pool"][-1]) > self._pool.place.rows:
            self.load(found)
        told, turn = set[str](), -1
        self._problem.advance(self._pool.place.rows)
        while self._pool.place.rows < until * self._rows:
            for line in self._weigher.notes():
                if line not in told:
                    told.add(line)
                    self._problem.note(line)
            before = self._pool.place.rows
            if self._pool.place.turn != turn:
                turn = self._pool.place.turn
                self._problem.turn(turn, self.step, self._weigher.logits)
            self._take(before / self._rows)
            self._problem.advance(min(self._pool.place.rows, self._rows) - before)
            self._problem.keep(self.state)
        return self._visits

    def _take(self, fraction: float) -> None:
        batch = next(self._pool)
        self.step += 1
        self._rate = self._settings.learning_rate * learning_rate_factor(fraction + 1 / self._rows)
        total = torch.zeros((), device=self._learner.device)
        for term in self._weigher.terms(batch, fraction):
            term.backward()
            total += term.detach().float()
        value, norm = torch.stack([total, self._descent.step(self._rate).float()]).tolist()
        if not (math.isfinite(value) and math.isfinite(norm)):
            found = f"objective {value}, gradient norm {norm}"
            fix = f"Lower method.loop.learning_rate (now {self._settings.learning_rate})."
            raise ModelError(f"method.loop, step {self.step}", found, "finite numbers", fix)
        self._weigher.update()
        self.tokens += int(batch.attention.sum())
        self._visits[[*batch.rows]] = True

    def _target_batches(self) -> Iterator[Batch]:
        """Each named target in turn."""
        while self._targets:
            self._turn += 1
            yield next(self._targets[(self._turn - 1) % len(self._targets)])

    def state(self) -> Tensors:
        """Everything that `load` needs to go on from here, bit for bit."""
        places = {f"target/{index}": stream.place.tensor() for index, stream in enumerate(self._targets)}
        return {
            **{f"model/{name}": value for name, value in self._descent.state().items()},
            **{f"weigher/{name}": value for name, value in self._weigher.state().items()},
            **places,
            "pool": self._pool.place.tensor(),
            "others": self._others.place.tensor(),
            "counts": torch.tensor([self._turn, self.step, self.tokens]),
            "visits": torch.from_numpy(self._visits),
        }

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self._descent.load(_below(state, "model/"))
        self._weigher.load(_below(state, "weigher/"))
        self._pool.go_to(Place.of(state["pool"]))
        self._others.go_to(Place.of(state["others"]))
        for index, stream in enumerate(self._targets):
            stream.go_to(Place.of(state[f"target/{index}"]))
        self._turn, self.step, self.tokens = map(int, state["counts"].tolist())
        self._visits = state["visits"].numpy().copy()


def _below(state: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

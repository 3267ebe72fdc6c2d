"""DWM in the loop: a small network weighs every batch, and is moved by what one step under its weights does to the target's loss.

    stage 1          the model trains on everything alike
    stage 2, 3, ...  A: the model stands still; s_j = <grad L_target(theta*), grad l_j>
                        with theta* = theta - a sum_j omega_j grad l_j;
                        the network goes down J = -sum_j sg[s_j] omega_j
                     B: the network stands still; the model goes down mean_j omega_j l_j

A comes at the beginning of every stage, as published, or for an update or so every few steps. An update is dear (a batch of the
pool forward and backward and twice forward, one of the target forward and backward) and the network is small, so that it learns
from the slopes of the last updates several times over. The slopes are standardised in their batch: the direction matters, and
neither a's nor the loss's scale.

Reference: DWM, 2025, arXiv 2507.16178 (stages, chain rule); architecture, replay and entropy are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from curate.bilevel.unrolled import Point, slopes_and_losses, stepped
from curate.methods.batch import Learner, Tensors
from curate.methods.preferences import Preferences
from curate.methods.settings import LoopSettings, Positive
from curate.methods.weighting_model import (
    SCALARS,
    Readings,
    Vocabulary,
    WeightingModel,
    inputs,
    joined,
    known_from,
    mean_vectors,
    objective,
    read,
    restored,
    vocabulary,
    weights_of,
)
from curate.models.descent import Descent
from curate.models.displaced import displaced
from curate.types import Batch

Count = Annotated[int, Field(ge=1)]
DIMENSIONS = 64
"""Numbers of a token's vector."""
LOOKED_AT = 32
"""Batches of the pool that tokens are counted in; no model reads them."""
OUTLIER = 4.0
"""Deviations that a slope counts at most."""
TOGETHER = 16
"""Batches whose slopes a step of the network takes together."""
FORWARD = 1 / 3
"""A forward pass as a share of forward and backward."""


class DwmLoopConfig(LoopSettings):
    """Alternating training of the proxy and the weighting model."""

    passes: Annotated[int, Field(ge=0)] = 4
    """Number of passes over the pool. 0 needs `weigher` and uses the proxy untrained."""
    target_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of the target in an update (default: twice the pool's in a step)."""
    stages: Annotated[int, Field(ge=2)] = 5
    """Number of equal parts of the training. The first is without weights; the weighting model is kept at the end of each other
    part."""
    every: Count | None = 40
    """Steps of the proxy between two updates of the weighting model; null: once at the beginning of each stage, as published."""
    updates: Count = 1
    """M: consecutive updates of the weighting model, each time."""
    batches: Count = 12
    """Pool batches whose directional derivatives are computed with one gradient of the target, which is the expensive part. 1
    is as published; with more, only the first batch's weights determine the virtual step."""
    refresh: Count = 16
    """Updates of the weighting model in a generation of `curate online` that follows another trainer."""
    step: Annotated[float, Field(ge=0)] = 20.0
    """a: size of the virtual step, in current learning rates. 0 computes the target's gradient at the current model."""
    rate: Positive = 3e-3
    """eta: learning rate of the weighting model."""
    replay: Count = 200
    """Size of the replay buffer of the weighting model, in batches; 1 is as published."""
    repeats: Count = 24
    """Optimizer steps of the weighting model in an update."""
    entropy: Annotated[float, Field(ge=0)] = 0.5
    """Entropy regularisation of the weights, relative to derivatives of standard deviation 1. Large values keep the weights
    close to uniform."""
    company: Annotated[int, Field(ge=0)] = 64
    """Rows of recent steps weighed together with each batch, so that a batch of poor rows gets less weight than one of good
    rows. 0 weighs each batch alone, as published."""
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 32
    """Width of the weighting model's layers."""
    layers: Annotated[int, Field(ge=0)] = 1
    """Number of the weighting model's layers."""
    embedding: Literal["tokens", "none"] = "tokens"
    """tokens: the weighting model also reads a frozen embedding of each token, taken from the proxy after the first stage, and
    can be used with any model of the same tokenizer. none: it reads loss and length only."""

    @property
    def target_budget(self) -> int:
        """Tokens of the target in an update."""
        return self.target_tokens or 2 * self.batch_tokens

    @property
    def alike(self) -> bool:
        """Batches that the weighting model learns from have rows of all lengths, or it would learn nothing of lengths."""
        return False

    @property
    def weigher(self) -> bool:
        """A weighting model is kept, with the proxy."""
        return True

    @property
    def work(self) -> float:
        """The updates beside the training."""
        often = self.updates / self.every if self.every is not None else 0.0
        update = 1 + 2 * FORWARD * self.batches + self.target_budget / self.batch_tokens
        return self.models + (1 - 1 / self.stages) * often * update

    @property
    def episode(self) -> int:
        """Tokens of the updates of a generation."""
        return round(self.refresh * ((1 + 2 * FORWARD * self.batches) * self.batch_tokens + self.target_budget))

    @property
    def once(self) -> int:
        """Phases at the beginning of stages, whatever the number of passes."""
        if self.every is not None:
            return 0
        return round((self.stages - 1) * self.updates / self.refresh * self.episode)


class DwmLoop:
    """A BatchWeigher that weighs by a network; what it keeps of a row is the logarithm of its last weight.

    Args:
        settings: of the training.
        rows: rows of the pool N.
        share: least effective share of a batch's weights.
        seed: of the network and of what is drawn.
        stored: a weighting model that is only to be used: as `kept` gave it.
    """

    def __init__(
        self, settings: DwmLoopConfig, rows: int, *, share: float, seed: int = 0, stored: Tensors | None = None
    ) -> None:
        self._settings, self._share, self._seed, self._stored = settings, share, seed, stored
        self.stages = settings.stages if stored is None else int(stored["stages"])
        self.preferences = Preferences(rows, self.stages, seed=seed)
        self._values = torch.zeros(rows, dtype=torch.float64)
        self.known: Vocabulary | None = None
        self._network: WeightingModel | None = None
        self._kept: Tensors = {}
        self._replay: list[tuple[Tensor, Tensor]] = []
        self._company: Readings | None = None
        self._stage, self._since, self._updates, self._due = 0, 0, 0, False
        self._seen: tuple[Batch, Tensor, Tensor] | None = None

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model and its batches."""
        self._learner, self._targets, self._pool = learner, targets, pool

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The mean loss under the network's weights; under none in the first stage."""
        self._turn_to(min(int(fraction * self.stages), self.stages - 1))
        if self._learns_now:
            self.phase()
        losses = self._learner.losses(batch)
        weights = self.weights(batch, losses.detach()) if self._stage else torch.ones_like(losses)
        self._seen = batch, weights, losses.detach()
        yield (weights * losses).mean()

    def update(self) -> None:
        """Take down what the step's rows weighed."""
        if self._seen is None:
            return
        batch, *numbers = self._seen
        weights, losses = torch.stack([each.double() for each in numbers]).cpu()
        self._values[[*batch.rows]] = weights.clamp(min=1e-12).log()
        self.preferences.note(self._stage, batch.rows, weights, losses, batch.attention.sum(1))
        self._seen, self._since = None, self._since + 1

    def logits(self) -> Tensor:
        """Logarithm of the last weight, float64 [N]; 0 of a row that was not visited."""
        return self._values.clone()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        found = {"values": self._values.clone(), **_within("preferences", self.preferences.state()), **self._kept}
        found["counts"] = torch.tensor([self._stage, self._since, self._updates, int(self._due)])
        if self._network is not None:
            found |= _within("network", self._descent.state())
        for place, (read_of, found_of) in enumerate(self._replay):
            found |= {f"replay/{place}/inputs": read_of.cpu().clone(), f"replay/{place}/slopes": found_of.cpu().clone()}
        if self._company is not None:
            found |= _within("company", {name: value.cpu().clone() for name, value in vars(self._company).items()})
        return found

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self._values = state["values"].clone()
        self.preferences.load(below(state, "preferences/"))
        self._stage, self._since, self._updates, due = map(int, state["counts"].tolist())
        self._due = bool(due)
        self._kept = {name: value for name, value in state.items() if name.startswith(("vocabulary/", "stage/"))}
        own = below(state, "network/")
        if own:
            self._ready()
            self._descent.load(own)
        device, old = self._learner.device, below(state, "replay/")
        pairs = [(old[f"{place}/inputs"], old[f"{place}/slopes"]) for place in range(len(old) // 2)]
        self._replay = [(read_of.to(device), found_of.to(device)) for read_of, found_of in pairs]
        recent = {name: value.to(device) for name, value in below(state, "company/").items()}
        self._company = Readings(**recent) if recent else None

    def notes(self) -> list[str]:
        """Nothing to say."""
        return []

    def finish(self) -> None:
        """The training is over, or as far as a generation goes: the weighting model is kept as it is."""
        self._ready()
        self._keep_stage()

    def refresh(self) -> None:
        """Learn for a proxy that was trained elsewhere; a stored weighting model stays what it is."""
        if self._stored is None:
            self.phase(self._settings.refresh)

    def kept(self) -> Tensors:
        """The weighting model as it is and at the end of every stage, and what it knows of tokens: tensors on the CPU."""
        if self._stored is not None:
            return dict(self._stored)
        now = {name: value.cpu().clone() for name, value in self.network.state_dict().items()}
        return {**self._kept, **_within("now", now), "stages": torch.tensor(self.stages)}

    def weights(self, batch: Batch, losses: Tensor) -> Tensor:
        """Weights of a batch [b], given its losses [b]; with its company, their mean is 1."""
        network = self._ready()
        own = read(batch, losses, self.known)
        whole = own if self._company is None else joined([self._company, own])
        kept = self._settings.company
        self._company = Readings(*(value[-kept:] for value in vars(whole).values())) if kept else None
        with torch.no_grad():
            return weights_of(network(inputs(whole)), self._share)[-len(losses) :]

    @torch.no_grad()
    def readings(self, batch: Batch) -> Readings:
        """What is read of a batch under the model as it is now."""
        self._ready()
        return read(batch, self._learner.losses(batch), self.known)

    @property
    def network(self) -> WeightingModel:
        """The weighting model as it is."""
        return self._ready()

    def phase(self, updates: int | None = None) -> None:
        """Phase A: so many updates of the weighting model; the model that trains is bit for bit what it was."""
        for _ in range(updates or self._settings.updates):
            self._replay = [*self._replay, *self._slopes()][-self._settings.replay :]
            self._learn()
            self._updates += 1
        self._since, self._due = 0, False

    @property
    def _learns_now(self) -> bool:
        """Whether a phase of the weighting model is due; a stored one learns no more."""
        every = self._settings.every
        return self._stored is None and self._stage > 0 and (self._due or (every is not None and self._since >= every))

    def _slopes(self) -> list[tuple[Tensor, Tensor]]:
        """What the network reads of other batches [b, k], and the standardised slopes [b] of their samples.

        The step under the weights is that of the first batch; the rest go along the direction that it led to.
        """
        network, learner, batch = self._ready(), self._learner, next(self._pool)
        theta = {name: parameter.data for name, parameter in learner.parameters.items()}
        losses = learner.losses(batch)
        with torch.no_grad():
            weights = weights_of(network(inputs(read(batch, losses, self.known))), self._share)
        virtual = stepped(theta, self._gradient((weights * losses).mean()), self._settings.step * learner.rate())
        with displaced(learner.parameters, virtual):
            direction = self._gradient(learner.losses(next(self._targets)).mean())
        batches = [batch, *(next(self._pool) for _ in range(self._settings.batches - 1))]
        return [self._along(each, theta, direction) for each in batches]

    def _along(self, batch: Batch, theta: Point, direction: Point) -> tuple[Tensor, Tensor]:
        def at(point: Point) -> Tensor:
            with displaced(self._learner.parameters, point):
                return self._learner.losses(batch)

        found, losses = slopes_and_losses(at, theta, direction)
        return inputs(read(batch, losses.float(), self.known)), standardised(found).float()

    def _learn(self) -> None:
        """A few steps down the surrogate of some of the last updates, with the relative entropy of the weights beside it."""
        drawing = np.random.default_rng([self._seed, self._updates])
        for _ in range(self._settings.repeats):
            chosen = [self._replay[place] for place in drawing.permutation(len(self._replay))[:TOGETHER].tolist()]
            seen, found = (pad_sequence(list(each), batch_first=True) for each in zip(*chosen, strict=True))
            sizes = torch.tensor([len(own) for _, own in chosen])
            real = (torch.arange(found.shape[1]) < sizes[:, None]).to(found.device)
            objective(self.network(seen, real), found, real, self._settings.entropy).backward()
            self._descent.step(self._settings.rate)

    def _gradient(self, loss: Tensor) -> dict[str, Tensor]:
        live = self._learner.parameters
        found = torch.autograd.grad(loss, [*live.values()], allow_unused=True)
        return {
            name: torch.zeros_like(parameter) if each is None else each
            for (name, parameter), each in zip(live.items(), found, strict=True)
        }

    def _turn_to(self, stage: int) -> None:
        """The next stage begins: what the network was at the end of the last is kept; a stored one is what it was there."""
        if stage == self._stage:
            return
        self._keep_stage()
        self._stage, self._due = stage, True
        if self._stored is not None:
            self._ready().load_state_dict(of_stage(self._stored, stage))

    def _keep_stage(self) -> None:
        if self._stage and self._network is not None:
            own = self.network.state_dict()
            self._kept |= {f"stage/{self._stage}/{name}": value.cpu().clone() for name, value in own.items()}

    def _ready(self) -> WeightingModel:
        """The network, made when it is first wanted: what tokens are known by is then as it stays."""
        if self._network is not None:
            return self._network
        if self._stored is not None and not self._kept:
            self._kept = {name: value for name, value in self._stored.items() if name != "stages"}
        if "vocabulary/vectors" not in self._kept:
            self._kept |= _within("vocabulary", self._looked_up())
        known, device, settings = known_from(below(self._kept, "vocabulary/")), self._learner.device, self._settings
        self.known = None if known is None else known.to(device)
        if self._stored is not None:
            made = restored(of_stage(self._stored, self._stage))
        else:
            seen = SCALARS + (0 if known is None else known.vectors.shape[1])
            made = WeightingModel(seen, width=settings.width, layers=settings.layers, seed=self._seed)
        self._network = made.to(device)
        self._descent = Descent(dict(made.named_parameters()), betas=(0.9, 0.999), weight_decay=0.01)
        return made

    def _looked_up(self) -> Tensors:
        """What is known of tokens: their vectors in the proxy as it is now, their frequency in some batches of the pool."""
        given = self._learner.token_vectors
        if given is None or self._settings.embedding == "none":
            return dict.fromkeys(("vectors", "surprise", "mean", "deviation"), torch.zeros(0))
        vectors, batches = given(), [next(self._pool) for _ in range(LOOKED_AT)]
        tokens = torch.cat([batch.ids[batch.attention.bool()] for batch in batches])
        found, surprise = vocabulary(
            torch.bincount(tokens, minlength=len(vectors)), vectors, dim=DIMENSIONS, seed=self._seed
        )
        means = torch.cat([mean_vectors(found, batch) for batch in batches])
        deviation = means.std(0, correction=0).clamp(min=1e-6)
        return {"vectors": found, "surprise": surprise, "mean": means.mean(0), "deviation": deviation}


def standardised(slopes: Tensor) -> Tensor:
    """(s - mean) / deviation [b], at most 4 either way; 0 where all are the same."""
    apart, deviation = slopes - slopes.mean(), slopes.std(correction=0)
    tiny = 1e-9 * slopes.abs().mean()
    return torch.where(deviation > tiny, apart / deviation.clamp(min=1e-30), 0.0).clamp(-OUTLIER, OUTLIER)


def below(state: Mapping[str, Tensor], prefix: str) -> Tensors:
    """The tensors whose names begin so, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def of_stage(weigher: Tensors, stage: int) -> Tensors:
    """The network of a stage, or as it is where that stage was not reached or has none."""
    return below(weigher, f"stage/{stage}/") or below(weigher, "now/")


def _within(prefix: str, state: Mapping[str, Tensor]) -> Tensors:
    return {f"{prefix}/{name}": value for name, value in state.items()}

"""BDS with the model in the loop: weights are learned while the model trains on the pool under them.

Two algorithms for one problem: min over omega of the target's loss of the model that the weighted pool makes.

`penalty` (A) trains two models, theta on target and pool, its twin on the pool alone, and lowers the weight of samples
that theta predicts worse than the twin. `single` (B) drops the twin and lowers the weight of samples of large loss; it may
do so only while the target's term outweighs the pool's, or where every loss can reach 0.

Reference: Xiao and Chen, 2025, arXiv 2511.21056; Shen et al., SEAL, 2024, arXiv 2410.07471 (`single`); Shen and Chen, 2023,
arXiv 2302.05185 (`penalty`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, model_validator
from torch import Tensor

from curate.bilevel.penalty import mixed, penalised, ramp
from curate.methods.batch import Learner, Tensors
from curate.methods.logits import SampleLogits
from curate.methods.settings import LogitSettings, LoopSettings
from curate.models.twin import Twin
from curate.types import Batch

TRUSTED = 0.25
"""Largest gamma = (1 - lambda) / lambda for which `single` ranks as it should where losses do not reach 0 (METHODS T1.5)."""

Share = Annotated[float, Field(gt=0, lt=1)]


class BdsLoopConfig(LoopSettings):
    """BDS while the proxy trains."""

    passes: Annotated[int, Field(ge=1)] = 4
    """Number of passes over the pool. A row's logit is updated once in each; subtle damage such as shuffled words shows last."""
    algorithm: Literal["penalty", "single"] = "penalty"
    """penalty: two models, unbiased for large gamma; single: one model, valid only while the target's term dominates."""
    logits: LogitSettings = Field(default_factory=LogitSettings)
    """How the weights are updated."""
    penalty: Annotated[float, Field(gt=0)] = 10.0
    """Only for `algorithm: penalty`. gamma at the end of training: weight of the pool's loss relative to the target's. The bias
    falls as 1 / gamma; a small value lets the model drift from the pool to the target."""
    penalty_start: Annotated[float, Field(gt=0)] | None = None
    """Only for `algorithm: penalty`. gamma at the start, from where it changes linearly to `penalty` (default: the same)."""
    target_share: Share = 0.9
    """Only for `algorithm: single`. lambda: weight of the target in the objective."""
    target_share_end: Share | None = None
    """Only for `algorithm: single`. lambda at the end of training (default: the same)."""

    @property
    def models(self) -> float:
        """The twin takes every batch as well."""
        return 2.0 if self.algorithm == "penalty" else 1.0

    @model_validator(mode="after")
    def _settings_of_the_algorithm(self) -> BdsLoopConfig:
        own = {"penalty": ("target_share", "target_share_end"), "single": ("penalty", "penalty_start")}
        for name in own[self.algorithm]:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no meaning with algorithm: {self.algorithm}; remove it")
        return self


class BdsLoop:
    """What both algorithms share: logits of all samples, a target's batch each step.

    Args:
        config: the settings.
        rows: rows of the pool N.
    """

    def __init__(self, config: BdsLoopConfig, rows: int) -> None:
        self.config = config
        self.table = SampleLogits(rows, config.logits)
        self._seen: tuple[list[int], Tensor] | None = None
        self._notes: list[str] = []

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model and the target's batches."""
        self.learner, self._targets = learner, targets

    def update(self) -> None:
        """Move the logits of the step's rows by its signal."""
        if self._seen is not None:
            rows, signal = self._seen
            self.table.descend(rows, signal.cpu())
            self._seen = None

    def logits(self) -> Tensor:
        """log sigma up to a constant, float64 [N]."""
        return self.table.log_weights()

    def state(self) -> Tensors:
        """Everything that `load` needs."""
        return self.table.state()

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        self.table.load(state)

    def notes(self) -> list[str]:
        """What a user should know."""
        return self._notes

    def _target_loss(self) -> Tensor:
        return self.learner.losses(next(self._targets)).mean()

    def _weighted(self, batch: Batch, losses: Tensor) -> Tensor:
        """mean_b sigma_i l_i: weights have mean 1 over the pool, not over the batch, or a bad batch could not shrink."""
        return (self.table.weights([*batch.rows]).to(losses) * losses).mean()


class PenaltyBds(BdsLoop):
    """Algorithm A: F = L_target(theta) + gamma (g(omega, theta) - g(omega, theta_hat)), theta_hat the twin.

    dF/dsigma_i = (gamma/N) (l_i(theta) - l_i(theta_hat)): the excess loss, both models as they were before the step.

    Both move under one preconditioner, the model's. Adam with second moments of its own would move theta_hat by a little more
    on each row, since the target's gradient is a part of what theta's is divided by: rows of large weight would look worse
    for having been learned by heart.
    """

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model and make its twin."""
        super().begin(learner, targets, pool)
        self.twin = Twin(learner.parameters, betas=(self.config.beta1, self.config.beta2))

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The twin's step, then the target's loss and the pool's weighted one."""
        config = self.config
        start = config.penalty if config.penalty_start is None else config.penalty_start
        gamma = ramp(start, config.penalty, fraction)
        reference = self._twin_terms(batch, min(gamma, 1.0))
        yield penalised(self._target_loss(), reference.new_zeros(()), gamma)
        losses = self.learner.losses(batch)
        self._seen = [*batch.rows], min(gamma, 1.0) * (losses.detach() - reference)
        yield penalised(reference.new_zeros(()), self._weighted(batch, losses), gamma)

    def update(self) -> None:
        """Move the twin as the model was moved, and the logits."""
        leader, rate = self.learner.descent, self.learner.rate()
        if self._seen is not None:
            self.twin.descent.step(rate) if leader is None else self.twin.descent.follow(leader, rate)
        super().update()

    def state(self) -> Tensors:
        """The logits and the twin."""
        return super().state() | {f"twin/{name}": value for name, value in self.twin.descent.state().items()}

    def load(self, state: Tensors) -> None:
        """Go on from a state."""
        super().load(state)
        self.twin.descent.load(
            {name.removeprefix("twin/"): value for name, value in state.items() if name.startswith("twin/")}
        )

    def _twin_terms(self, batch: Batch, factor: float) -> Tensor:
        """Losses of the twin before its step [b]; the gradient of the weighted ones, which count as in the model's objective,
        waits for the model's step."""
        seen: list[Tensor] = []

        def objective() -> Tensor:
            losses = self.learner.losses(batch)
            seen.append(losses.detach())
            return factor * self._weighted(batch, losses)

        self.twin.gather(objective)
        return seen[0]


class SingleBds(BdsLoop):
    """Algorithm B: lambda L_target + (1 - lambda) mean_b sigma_i l_i, and logits down mean_b sigma_i l_i."""

    def begin(self, learner: Learner, targets: Iterator[Batch], pool: Iterator[Batch]) -> None:
        """Take the model; say so if the settings are not to be trusted."""
        super().begin(learner, targets, pool)
        lowest = min(self.config.target_share, self.config.target_share_end or 1.0)
        gamma = (1 - lowest) / lowest
        if gamma > TRUSTED * (1 + 1e-9):
            self._notes.append(
                f"method.loop: the pool's term is {gamma:.2g} times the target's, but `algorithm: single` is valid only up to "
                f"{TRUSTED}: above that, samples of low loss gain weight whether good or not. Set target_share to at least "
                f"{1 / (1 + TRUSTED):.2g}, or use `algorithm: penalty`."
            )

    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        """The target's loss and the pool's weighted one."""
        end = self.config.target_share if self.config.target_share_end is None else self.config.target_share_end
        share, target = ramp(self.config.target_share, end, fraction), self._target_loss()
        yield mixed(target, target.new_zeros(()), share)
        losses = self.learner.losses(batch)
        self._seen = [*batch.rows], losses.detach()
        yield mixed(losses.new_zeros(()), self._weighted(batch, losses), share)


def bds_loop(config: BdsLoopConfig, rows: int) -> BdsLoop:
    """The algorithm that the settings name."""
    return (PenaltyBds if config.algorithm == "penalty" else SingleBds)(config, rows)

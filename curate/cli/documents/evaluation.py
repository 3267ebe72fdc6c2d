"""What evaluate, arena and lds say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from curate.cli.documents.base import Document, Part, number


class Interval(Part):
    """A mean and its 95 % interval."""

    mean: float | None
    """Over seeds; null if a training diverged."""
    low: float | None
    """Lower end; null with one seed."""
    high: float | None
    """Upper end; null with one seed."""


class Arm(Part):
    """One way to use the data, and the models that were trained so."""

    arm: str
    """Its name."""
    method: str
    """Method of the weights, or the control."""
    use: str
    """How the weights are used: weighted, filtered, resampled, or the control's name."""
    verdict: str
    """better than uniform, no different, worse, diverged, or unknown (one seed, or no uniform arm)."""
    loss: Interval
    """Held-out loss at the end of the budget, nats a token."""
    gain: Interval | None
    """Loss of uniform less that of the arm, nats a token: positive is better; null if no seed trained both."""
    recovery: Interval | None
    """Gain as a share of the gain of the rows known to be good; null without such rows."""
    tokens_to_uniform: float | None
    """Tokens after which the arm is as good as uniform ends; null if never."""
    effective_rows: float | None
    """Kish's effective sample size of the weights."""
    duplicate_mass: float | None
    """Share of the weight on rows whose text an earlier row has, 0 to 1."""
    passes: float | None
    """Forward and backward passes over the pool that learning the weights took."""
    seeds: int
    """Trainings."""


class Problem(Part):
    """One pool with its held-out rows."""

    name: str
    """Its name."""
    tokens: int
    """Tokens of a training."""
    notes: list[str]
    """What a reader has to know."""
    arms: list[Arm]
    """Lowest loss first."""


class _Comparison(Document):
    title: str
    """What was compared."""
    facts: dict[str, str]
    """Model, tokens, seeds, machine and versions, as text."""
    report: str
    """Path of the page that shows the same."""
    problems: list[Problem]
    """In the order of the file."""

    @classmethod
    def of(cls, report: Path, view: Any, verdict: Callable[[Any], str]) -> Self:
        """The document of an `evaluation.report.EvaluationView`."""
        problems = [
            Problem(
                name=each.name, tokens=each.budget, notes=list(each.notes),
                arms=[_arm(arm, verdict(arm)) for arm in each.summaries],
            )
            for each in view.problems
        ]  # fmt: skip
        return cls(title=view.title, facts=view.facts, report=str(report), problems=problems)


class Evaluate(_Comparison):
    """`curate evaluate`: did it help?"""

    verb: Literal["evaluate"] = "evaluate"
    """The verb that printed this."""


class Arena(_Comparison):
    """`curate arena`: many methods on the same pools."""

    verb: Literal["arena"] = "arena"
    """The verb that printed this."""


class Score(Part):
    """Linear datamodelling score of one run: Spearman correlation of summed weights and losses over random subsets."""

    run: str
    """Run directory."""
    method: str
    """Method of its weights."""
    weight: Interval
    """Score of the weights, -1 to 1."""
    log_weight: Interval | None
    """Score of their logarithms; null if a weight is 0."""


class Lds(Document):
    """`curate lds`: do the weights predict which part of the pool trains well?"""

    verb: Literal["lds"] = "lds"
    """The verb that printed this."""
    scores: list[Score]
    """Highest first."""

    @classmethod
    def of(cls, found: list[Any]) -> Self:
        """The document of `evaluation.lds.Score`s."""
        scores = [
            Score(
                run=str(score.run), method=score.method, weight=_interval(score.weight),
                log_weight=_interval(score.log_weight) if score.log_weight else None,
            )
            for score in found
        ]  # fmt: skip
        return cls(scores=scores)


def _interval(found: Any) -> Interval:
    return Interval(mean=number(found.mean), low=number(found.low), high=number(found.high))


def _arm(found: Any, verdict: str) -> Arm:
    return Arm(
        arm=found.arm, method=found.method, use=found.use, verdict=verdict, loss=_interval(found.loss),
        gain=_interval(found.against_uniform) if found.against_uniform else None,
        recovery=_interval(found.recovery) if found.recovery else None,
        tokens_to_uniform=number(found.tokens_to_uniform), effective_rows=number(found.effective_sample_size),
        duplicate_mass=number(found.duplicate_mass), passes=number(found.cost), seeds=found.seeds,
    )  # fmt: skip

"""What the losses of a few trainings say: intervals over seeds, gains over uniform, verdicts. Numbers in, numbers out.

Losses are held-out target losses in nats per token. Trainings of different arms with one seed share what the seed decides, such
as the initial weights, so arms are compared seed by seed: what they have in common cancels.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

UNIFORM = "uniform"
"""The arm that every other one is compared with."""
CLEAN = "clean"
"""The oracle: trained on the rows that are known to be good."""
REFERENCES = (UNIFORM, CLEAN)
"""Arms that are there for the others to be compared with."""
LEVEL = 0.95
"""Of all intervals."""

BETTER, EQUAL, WORSE, DIVERGED, UNKNOWN = "better than uniform", "no different", "worse", "diverged", "unknown"
VERDICTS = (BETTER, EQUAL, WORSE, DIVERGED, UNKNOWN)


@dataclass(frozen=True)
class Trained:
    """One training: the held-out target loss, nats per token, after each of several counts of tokens."""

    arm: str
    seed: int
    tokens: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        """The loss at the end of the token budget: the result."""
        return self.losses[-1]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % interval; `low` and `high` are NaN where one seed says nothing of the spread."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2

    @property
    def known(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.half)


@dataclass(frozen=True)
class ArmFacts:
    """What is known of an arm before it is trained."""

    method: str
    use: str = ""
    """How the weights are used: weighted, filtered, resampled."""
    effective_sample_size: float | None = None
    """Rows."""
    duplicate_mass: float | None = None
    """Share of the weight, 0 to 1."""
    cost: float | None = None
    """Forward and backward passes over the pool that the curation took."""


@dataclass(frozen=True)
class ArmSummary:
    """What is known of an arm after its trainings; see `summarise`."""

    arm: str
    method: str
    use: str
    loss: Interval
    against_uniform: Interval | None
    """Loss of uniform less that of the arm, so positive is better; None if no seed trained both."""
    recovery: Interval | None
    """Share of the oracle's gain that the arm has too; None without an oracle that is clearly better than uniform."""
    tokens_to_uniform: float | None
    """Median over the seeds of the tokens after which the arm is as good as uniform ends; None if never."""
    effective_sample_size: float | None
    duplicate_mass: float | None
    cost: float | None
    seeds: int


@cache
def student(degrees: int, level: float = LEVEL) -> float:
    """The t for which a Student variable of `degrees` (at least 1) is in [-t, t] with probability `level`.

    Reference: Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4, closed forms in angle = atan(t / sqrt(degrees)), bisected.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _probability(angle, degrees) < level else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def _probability(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)): sin(angle) times a polynomial in cos(angle) of degree `degrees` - 2."""
    odd = degrees % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def interval(values: Sequence[float]) -> Interval:
    """The mean of at least one value and Student's interval for it."""
    mean = sum(values) / len(values)
    return _around(mean, [value - mean for value in values])


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """The interval of the mean difference ours - theirs; both are in the order of the same seeds."""
    return interval([mine - other for mine, other in zip(ours, theirs, strict=True)])


def recovery(uniform: Sequence[float], arm: Sequence[float], oracle: Sequence[float]) -> Interval | None:
    """Share of the oracle's gain over uniform that an arm has: R = sum_s d_s / sum_s g_s, losses in the order of the same seeds.

    d_s = uniform - arm and g_s = uniform - oracle for seed s. The standard error is that of a ratio estimator, linearised:
    the one of the mean of the residuals d_s - R g_s, over the mean of g. It is good while the mean of g is known to a fifth or
    so, as it is wherever the interval of g leaves out 0: elsewhere R means little.

    Returns:
        None if the interval of the oracle's gain does not lie above 0; of one seed only the gain itself is asked.

    Reference: Cochran, 1977, Sampling Techniques, 3rd ed., ch. 6.
    """
    gains = [base - loss for base, loss in zip(uniform, arm, strict=True)]
    gaps = [base - loss for base, loss in zip(uniform, oracle, strict=True)]
    gap = interval(gaps)
    if not gap.mean > 0 or gap.low <= 0:
        return None
    ratio = sum(gains) / sum(gaps)
    return _around(ratio, [gain - ratio * best for gain, best in zip(gains, gaps, strict=True)], unit=gap.mean)


def _around(mean: float, deviations: Sequence[float], unit: float = 1.0) -> Interval:
    """Student's interval from the deviations of each seed, in multiples of `unit`."""
    seeds = len(deviations)
    if seeds < 2:
        return Interval(mean, math.nan, math.nan)
    error = math.sqrt(sum(each**2 for each in deviations) / (seeds - 1) / seeds) / unit
    half = student(seeds - 1) * error
    return Interval(mean, mean - half, mean + half)


def tokens_to_reach(tokens: Sequence[int], losses: Sequence[float], level: float) -> float | None:
    """Tokens after which the loss is first at `level` or below, linear between two evaluations; None if never.

    A level that the first evaluation already meets is said to be reached there: no loss is known before it.
    """
    for place, loss in enumerate(losses):
        if loss <= level:
            before = losses[place - 1] if place else math.inf
            if not math.isfinite(before):
                return float(tokens[place])
            part = (before - level) / (before - loss)
            return tokens[place - 1] + part * (tokens[place] - tokens[place - 1])
    return None


def effective_sample_size(weights: Iterable[float]) -> float:
    """(sum w)^2 / sum w^2 over the rows that have a weight (not NaN); 0 if there is none.

    Reference: Kish, 1965, Survey Sampling.
    """
    own = [float(weight) for weight in weights if weight > 0]
    largest = max(own, default=1.0)  # else squares of tiny weights vanish
    squares = math.fsum((weight / largest) ** 2 for weight in own)
    return math.fsum(weight / largest for weight in own) ** 2 / squares if squares else 0.0


def duplicate_mass(weights: Iterable[float], keys: Iterable[Hashable]) -> float:
    """Share of the weight on rows whose key (hash of the content) an earlier row has; rows without weight are not there."""
    seen: set[Hashable] = set()
    first, again = [0.0], [0.0]
    for weight, key in zip(weights, keys, strict=True):
        if weight > 0:
            (again if key in seen else first).append(float(weight))
            seen.add(key)
    total = math.fsum(first + again)
    return math.fsum(again) / total if total else 0.0


def summarise(trained: Sequence[Trained], facts: Mapping[str, ArmFacts]) -> list[ArmSummary]:
    """One summary an arm, lowest loss first; arms whose loss is not finite come last.

    Args:
        trained: one training for each arm and seed, in any order; arms need not have the same seeds.
        facts: by arm; an arm that is not in it is taken for a method of its own name.
    """
    arms: dict[str, dict[int, Trained]] = {}
    for training in trained:
        arms.setdefault(training.arm, {})[training.seed] = training
    summaries = [_summary(arm, arms, facts.get(arm) or ArmFacts(arm)) for arm in arms]
    return sorted(summaries, key=lambda each: (not math.isfinite(each.loss.mean), each.loss.mean, each.arm))


def verdict(summary: ArmSummary) -> str:
    """One of `VERDICTS`, by whether the interval of the gain over uniform leaves out 0.

    `unknown` if there is no interval (one seed, no uniform arm), `diverged` if the arm's loss is not a finite number.
    """
    if not math.isfinite(summary.loss.mean):
        return DIVERGED
    gain = summary.against_uniform
    if gain is None or not gain.known:
        return UNKNOWN
    return BETTER if gain.low > 0 else WORSE if gain.high < 0 else EQUAL


def _summary(arm: str, arms: Mapping[str, Mapping[int, Trained]], facts: ArmFacts) -> ArmSummary:
    runs, uniform, clean = arms[arm], arms.get(UNIFORM, {}), arms.get(CLEAN, {})
    both = [seed for seed in sorted(runs) if seed in uniform]
    three = [seed for seed in both if seed in clean]
    reached = [tokens_to_reach(runs[seed].tokens, runs[seed].losses, uniform[seed].loss) for seed in both]
    middle = median([math.inf if each is None else each for each in reached]) if reached else math.inf
    return ArmSummary(
        arm=arm,
        method=facts.method,
        use=facts.use,
        loss=interval(_losses(runs, sorted(runs))),
        against_uniform=paired(_losses(uniform, both), _losses(runs, both)) if both else None,
        recovery=recovery(*(_losses(each, three) for each in (uniform, runs, clean))) if three else None,
        tokens_to_uniform=middle if math.isfinite(middle) else None,
        effective_sample_size=facts.effective_sample_size,
        duplicate_mass=facts.duplicate_mass,
        cost=facts.cost,
        seeds=len(runs),
    )


def _losses(runs: Mapping[int, Trained], seeds: Iterable[int]) -> list[float]:
    return [runs[seed].loss for seed in seeds]

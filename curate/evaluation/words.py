"""What a comparison says, in figures with their intervals and in whole sentences: of failures as plainly as of successes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from curate.evaluation.statistics import (
    BETTER,
    CLEAN,
    DIVERGED,
    EQUAL,
    REFERENCES,
    UNIFORM,
    UNKNOWN,
    VERDICTS,
    WORSE,
    ArmSummary,
    Interval,
    verdict,
)
from curate.reports.figures import amount


def loss(found: Interval) -> str:
    """`3.412 ± 0.021`, nats a token."""
    if not math.isfinite(found.mean):
        return "diverged"
    return f"{found.mean:.3f}" + (f" ± {found.half:.3f}" if found.known else "")


def gain(found: Interval | None) -> str:
    """`+0.084 ± 0.023`, nats a token; empty if there is nothing to compare with."""
    if found is None or not math.isfinite(found.mean):
        return ""
    return _signed(found.mean) + (f" ± {found.half:.3f}" if found.known else "")


def share(found: Interval | None) -> str:
    """`71% ± 9%`."""
    if found is None or not math.isfinite(found.mean):
        return ""
    return _minus(f"{found.mean:.0%}") + (f" ± {found.half:.0%}" if found.known else "")


def tokens(summary: ArmSummary, budget: int) -> str:
    """`180,000 (60%)`, or `never`; empty if there is nothing to reach."""
    if summary.against_uniform is None or not math.isfinite(summary.against_uniform.mean):
        return ""
    reached = summary.tokens_to_uniform
    return "never" if reached is None else f"{amount(reached)} ({reached / budget:.0%})"


def passes(cost: float | None) -> str:
    """`1.50` forward and backward passes over the pool; empty if not known."""
    return "" if cost is None else f"{cost:.2f}"


def named(summary: ArmSummary) -> str:
    """The arm, and what its name leaves out of its method and use: `less · filtered`."""
    return " · ".join([summary.arm, *(word for word in (summary.method, summary.use) if word not in summary.arm)])


def sentence(summary: ArmSummary, budget: int) -> str:
    """What the trainings of one arm say, as one or two sentences."""
    found, difference = verdict(summary), summary.against_uniform
    if found == DIVERGED:
        return "Diverged: its loss is not a finite number."
    if summary.arm == UNIFORM:
        return "All rows with equal weight: the baseline of the comparison."
    if difference is None:
        return "Unknown: no uniform arm was trained with the same seeds."
    if not math.isfinite(difference.mean):
        return "Unknown: the uniform arm diverged."
    if found == UNKNOWN:
        return f"Unknown: one seed does not show how much is chance. Its gain over uniform is {gain(difference)} nats a token."
    between = f"(95% interval {_signed(difference.low)} to {_signed(difference.high)})"
    if found == EQUAL:
        return f"No different from uniform: a gain of {_signed(difference.mean)} nats a token {between} may be chance."
    by = f"than uniform by {abs(difference.mean):.3f} nats a token {between}."
    return f"Worse {by}" if found == WORSE else f"Better {by}{_recovered(summary)}{_reached(summary, budget)}"


def headline(summaries: Sequence[ArmSummary]) -> list[str]:
    """What the arms of one problem say together: by name which help and which do not, and the best of them."""
    arms = [each for each in summaries if each.arm not in REFERENCES]
    found = {name: [each.arm for each in arms if verdict(each) == name] for name in VERDICTS}
    clauses = [f"{len(names)} {_ARE[name]} ({', '.join(names)})" for name, names in found.items() if names]
    if not found[BETTER]:
        clauses.insert(0, "none is better than uniform")
    says = [f"Of {len(arms)} arm{'s' * (len(arms) != 1)}, {'; '.join(clauses)}."] if arms else []
    if found[BETTER]:
        best = next(each for each in arms if verdict(each) == BETTER)
        recovered = f", {share(best.recovery)} of the gain of training on the clean rows" if best.recovery else ""
        says.append(f"The best is {best.arm}: {gain(best.against_uniform)} nats a token{recovered}.")
    return says


def warnings(summaries: Sequence[ArmSummary]) -> list[str]:
    """What keeps a problem from saying anything about methods."""
    found = {each.arm: each for each in summaries}
    if UNIFORM not in found:
        return ["No uniform arm was trained, so there is no baseline to tell whether an arm helps."]
    if verdict(found[UNIFORM]) == DIVERGED:
        return ["The uniform arm diverged, so there is no baseline to tell whether an arm helps."]
    if found[UNIFORM].seeds < 2:
        return ["One seed only: there are no intervals, so there are no verdicts."]
    if CLEAN in found and verdict(found[CLEAN]) != BETTER:
        return ["Even training on the clean rows is no better than uniform: this problem cannot tell methods apart."]
    return []


_ARE = {
    BETTER: "better than uniform",
    EQUAL: "no different from uniform",
    WORSE: "worse than uniform",
    DIVERGED: "diverged",
    UNKNOWN: "without a verdict",
}


def _recovered(summary: ArmSummary) -> str:
    if summary.recovery is None or summary.arm == CLEAN:
        return ""
    return f" That is {share(summary.recovery)} of the gain of training on the clean rows."


def _reached(summary: ArmSummary, budget: int) -> str:
    reached = summary.tokens_to_uniform
    if reached is None:
        return ""
    return f" It reaches uniform's final loss after {amount(reached)} tokens, {reached / budget:.0%} of the budget."


def _signed(value: float) -> str:
    return _minus(f"{value:+z.3f}")


def _minus(figure: str) -> str:
    """With a minus as wide as a plus, so that columns stay straight."""
    return figure.replace("-", "\u2212")

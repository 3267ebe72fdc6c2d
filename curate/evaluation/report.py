"""The page of `curate evaluate` and `curate arena`: which arms train a better model than uniform weights, and which do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from curate.evaluation import charts, words
from curate.evaluation.statistics import BETTER, DIVERGED, REFERENCES, UNIFORM, WORSE, ArmSummary, Trained, verdict
from curate.reports.figures import amount
from curate.reports.html import template
from curate.reports.terminal import escape


@dataclass(frozen=True)
class ProblemView:
    """One pool with its target, and all arms that were trained on it."""

    name: str
    summaries: Sequence[ArmSummary]
    """Best first, as `summarise` gives them."""
    trained: Sequence[Trained]
    notes: Sequence[str] = ()

    @property
    def budget(self) -> int:
        """Tokens of a training."""
        return max((each.tokens[-1] for each in self.trained), default=0)


@dataclass(frozen=True)
class EvaluationView:
    """Everything the page shows; see `render`."""

    title: str
    facts: dict[str, str]
    """Machine, date, seeds, token budget: label → value."""
    problems: Sequence[ProblemView] = ()


@dataclass(frozen=True)
class Place:
    """How one arm does over all problems."""

    arm: str
    rank: float | None
    """Mean of its ranks, 1 is the best; None for the references and for an arm that some problem lacks."""
    summaries: list[ArmSummary | None]
    """Of each problem; None where it was not trained."""


def render(view: EvaluationView) -> str:
    """The page as text: static, without script. Every string of the view is escaped; charts are images."""
    return template("evaluation.html.jinja").render(
        view=view,
        drawn=[_drawn(problem) for problem in view.problems],
        places=places(view.problems),
        words=words,
        verdict=verdict,
        tone=_tone,
        amount=amount,
        uniform=UNIFORM,
        references=REFERENCES,
    )


def places(problems: Sequence[ProblemView]) -> list[Place]:
    """Arms by their mean rank over the problems; then those that some problem lacks, and the references."""
    ranks = [_ranks(problem.summaries) for problem in problems]
    found = [{each.arm: each for each in problem.summaries} for problem in problems]
    rows = []
    for arm in dict.fromkeys(arm for summaries in found for arm in summaries):
        own = [rank[arm] for rank in ranks if arm in rank]
        mean = sum(own) / len(own) if own and len(own) == len(problems) else None
        rows.append(Place(arm, mean, [summaries.get(arm) for summaries in found]))
    return sorted(rows, key=lambda row: (row.arm in REFERENCES, row.rank is None, row.rank or 0.0, row.arm))


def terminal_tables(view: EvaluationView) -> list[Table]:
    """One table a problem for the command line."""
    return [_table(problem) for problem in view.problems]


def _table(problem: ProblemView) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    table.title = Text(escape(problem.name))
    left = ("arm", "verdict")
    for column in (
        "arm", "loss (nats/token)", "gain over uniform", "share of clean's gain", "tokens to uniform's loss", "effective rows",
        "duplicates", "passes", "seeds", "verdict",
    ):  # fmt: skip
        table.add_column(column, justify="left" if column in left else "right")
    for each in problem.summaries:
        found = verdict(each)
        reference = each.arm == UNIFORM
        table.add_row(
            Text(escape(each.arm)),
            words.loss(each.loss),
            "" if reference else words.gain(each.against_uniform),
            "" if each.arm in REFERENCES else words.share(each.recovery),
            "" if reference else words.tokens(each, problem.budget),
            "" if each.effective_sample_size is None else amount(each.effective_sample_size),
            "" if each.duplicate_mass is None else f"{each.duplicate_mass:.1%}",
            words.passes(each.cost),
            str(each.seeds),
            Text("reference" if reference else found, style=_STYLES.get(found, "")),
        )
    return table


_STYLES = {BETTER: "green", WORSE: "red", DIVERGED: "red"}


def _tone(summary: ArmSummary) -> str:
    """The page's class for a verdict."""
    return {BETTER: "more", WORSE: "less", DIVERGED: "less"}.get(verdict(summary), "")


def _drawn(problem: ProblemView) -> tuple[ProblemView, Markup, Markup]:
    return problem, charts.ranking(problem.summaries), charts.curves(problem.summaries, problem.trained)


def _ranks(summaries: Sequence[ArmSummary]) -> dict[str, int]:
    arms = [each.arm for each in summaries if each.arm not in REFERENCES]
    return {arm: rank for rank, arm in enumerate(arms, 1)}

"""How much of a run's rows is read: tokens of long rows that are not, rows set aside and why, reasoning that a template drops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from curate.manifest import commits
from curate.manifest.commits import Commit
from curate.storage.paths import RunPaths

SHOWN = 3
"""Reasons that a line names."""


@dataclass(frozen=True)
class Reading:
    """What became of the rows of a pool before a model saw them.

    Attributes:
        rows: of the pool.
        dropped: those of them that were set aside.
        reasons: why, and how often.
        tokens: that are read; 0 where nothing is tokenised.
        whole: tokens of the same rows before anything was cut off.
        cut: rows of which not all is read.
        lost_reasoning: turns whose reasoning the chat template leaves out.
        dated: whether the chat template writes the date of the day.
    """

    rows: int
    dropped: int
    reasons: Counter[str]
    tokens: int = 0
    whole: int = 0
    cut: int = 0
    lost_reasoning: int = 0
    dated: bool = False

    @classmethod
    def of(cls, records: Iterable[Commit]) -> Reading:
        """The sum of what the tasks of `prepare`, or of `tokenize`, found."""
        rows = dropped = tokens = whole = cut = lost = 0
        dated = False
        reasons = Counter[str]()
        for record in records:
            rows, dropped = rows + record.rows_in, dropped + record.rows_dropped
            reasons.update(record.facts.get("reasons", {}))
            tokens, whole = tokens + record.facts.get("tokens", 0), whole + record.facts.get("whole", 0)
            cut, lost = cut + record.facts.get("cut", 0), lost + record.facts.get("lost_reasoning", 0)
            dated = dated or record.facts.get("dated", False)
        return cls(rows, dropped, reasons, tokens, whole, cut, lost, dated)

    @property
    def why(self) -> str:
        """The most frequent reasons: `12 × column "text": null; 3 × ...`."""
        named = [f"{count:,} × {reason}" for reason, count in self.reasons.most_common(SHOWN)]
        more = len(self.reasons) - len(named)
        return "; ".join(named) + (f"; and {more} more reasons" if more else "")

    @property
    def share(self) -> float:
        """Share of the tokens that is read, of rows that are read at all."""
        return self.tokens / self.whole if self.whole else 1.0

    def facts(self, model: dict[str, Any] | None) -> dict[str, Any]:
        """For the manifest: nothing where all is read.

        Args:
            model: the `model` section.
        """
        if not self.cut or model is None:
            return {}
        return {
            "tokens_read": f"{self.share:.1%} of {self.whole:,}",
            "rows_cut": f"{self.cut:,} of {self.rows:,} to {model['max_tokens']:,} tokens ({model['long_rows']})",
        }

    def lines(self, model: dict[str, Any] | None) -> Iterator[str]:
        """What a person has to know of it, a line each; none where all is read."""
        if self.dropped:
            yield f"set aside {self.dropped:,} of {self.rows:,} rows ({self.dropped / self.rows:.1%}): {self.why}"
        if self.cut and model is not None:
            yield (
                f"{self.share:.1%} of the tokens are read: {self.cut:,} of {self.rows:,} rows are longer than"
                f" model.max_tokens: {model['max_tokens']}, and model.long_rows is {model['long_rows']}"
                f" (`chunks` reads all of a row)"
            )
        if self.dated:
            yield "the chat template writes today's date: the same run on another day would read other tokens"
        if self.lost_reasoning:
            yield (
                f"the chat template leaves out the reasoning of {self.lost_reasoning:,} turns, which later turns follow:"
                " nothing is learned from it"
            )


def of_run(paths: RunPaths, stages: Iterable[str], shards: int) -> Reading:
    """What is committed of it: by `tokenize` where the run has that stage, else by `prepare`."""
    stage = "tokenize" if "tokenize" in stages else "prepare"
    found = (commits.load(paths, stage, index) for index in range(shards))
    return Reading.of(record for record in found if record is not None)

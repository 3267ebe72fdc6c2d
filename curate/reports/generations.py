"""Online mode as a person follows it: each generation, how old the shards' weights are, who is faster. From files alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from curate.manifest import generations
from curate.manifest.events import read
from curate.manifest.generations import Generation
from curate.storage.paths import RunPaths


@dataclass(frozen=True)
class GenerationLine:
    """One generation.

    Attributes:
        number: of the generation.
        step: steps that its proxy had trained.
        stale: generations in a row without a new checkpoint.
        weighed: shards weighed anew.
        shards: shards of the pool.
        oldest: generations since the shard that has waited longest was weighed.
        kept: share of the rows with a positive weight.
        excess: 5th, 50th and 95th percentile of the excess loss of the rows weighed anew, nats a token.
        loss: the same of the loss, for methods without excess.
        rate: rows weighed in a second; None if nobody timed it.
        trainer_rate: steps of the trainer in a minute since the generation before; None if that is not known.
    """

    number: int
    step: int
    stale: int
    weighed: int
    shards: int
    oldest: int
    kept: float
    excess: tuple[float, float, float] | None
    loss: tuple[float, float, float] | None
    rate: float | None
    trainer_rate: float | None


def lines(root: Path) -> list[GenerationLine]:
    """Every generation from the first that was weighed. Raises IntegrityError."""
    last = generations.newest(root) or 0
    times = _times(root)
    return [
        _line(generations.load(root, number), times.get(number), times.get(number - 1)) for number in range(1, last + 1)
    ]


def ages(root: Path) -> dict[int, int]:
    """How many shards were weighed so many generations ago. Raises IntegrityError."""
    newest = generations.current(root)
    if newest is None:
        return {}
    return dict(sorted(Counter(newest.number - shard.generation for shard in newest.shards).items()))


def _line(made: Generation, timed: dict[str, Any] | None, before: dict[str, Any] | None) -> GenerationLine:
    excess, loss = (made.facts.get(name) for name in ("excess", "loss"))
    return GenerationLine(
        made.number,
        made.source.get("step", 0),
        made.source.get("stale", 0),
        made.facts.get("weighed", 0),
        len(made.shards),
        max((made.number - shard.generation for shard in made.shards), default=0),
        sum(shard.kept for shard in made.shards) / max(1, sum(shard.valid for shard in made.shards)),
        (excess[0], excess[1], excess[2]) if excess else None,
        (loss[0], loss[1], loss[2]) if loss else None,
        timed["rows"] / timed["seconds"] if timed and timed["seconds"] else None,
        _trainer_rate(timed, before),
    )


def _trainer_rate(now: dict[str, Any] | None, before: dict[str, Any] | None) -> float | None:
    if now is None or before is None or now["step"] <= before["step"]:
        return None
    seconds = (datetime.fromisoformat(now["time"]) - datetime.fromisoformat(before["time"])).total_seconds()
    return 60 * (now["step"] - before["step"]) / seconds if seconds > 0 else None


def _times(root: Path) -> dict[int, dict[str, Any]]:
    """What the log says of each generation, the last time that it was published."""
    return {event["generation"]: event for event, _ in read(RunPaths(root).events) if event["event"] == "generation"}

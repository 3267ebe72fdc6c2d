"""How much lower one set of losses is than another, seed by seed, as result files say it."""

from __future__ import annotations

from collections.abc import Sequence

from curate.evaluation.statistics import paired


def gain(reference: Sequence[float], own: Sequence[float]) -> tuple[float, float] | None:
    """Nats a token: mean over seeds and half the width of its 95 % interval; None where there are too few to tell."""
    found = paired(reference, own)
    return (round(found.mean, 4), round(found.half, 4)) if found.known else None

"""seal, online: as seal; card and manifest also name the generation of the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from curate.stages import seal

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.storage.outputs import Outcome


def work(job: Job, _: int) -> Outcome:
    """Manifest and card with the generation, and the step of the training that it was weighed at."""
    from curate.manifest import generations

    newest = generations.current(job.paths.root)
    more = {} if newest is None else {"generation": newest.number, "step": newest.source.get("step", 0)}
    return seal.sealed(job, more)


STAGE = replace(seal.STAGE, work=work)

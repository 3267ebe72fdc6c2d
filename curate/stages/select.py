"""select: decide once for the whole pool which rows are written, and how their weights are adjusted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from curate.stages.stage import Scope, Stage, unknown

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome


def work(job: Job, _: int) -> Outcome:
    """The rule of the `output` section, over the weights of every shard."""
    from curate.runs.weights import check_outside_mean, labelled_weights
    from curate.sinks import adjustment, selection
    from curate.storage.fingerprint import canonical
    from curate.storage.outputs import Outcome

    output = job.pipeline.output
    check_outside_mean(job)
    change = adjustment.adjustment(lambda: labelled_weights(job), output)
    chosen = selection.select(lambda: (change.of(*found) for found in labelled_weights(job)), output, job.pipeline.seed)
    return Outcome({job.paths.selection: canonical({"selection": chosen.to_json(), "adjustment": asdict(change)})})


def identity(inputs: Inputs) -> list[Any]:
    """The `output` section."""
    return [inputs.settings["output"], inputs.pipeline.seed]


STAGE = Stage("select", Scope.ONCE, ("weigh",), work, identity=identity, extent=unknown)

"""The method of a run, built from its section: what `fit` and `weigh` call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.errors import ConfigError
from curate.methods.registry import METHODS

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    from curate.training.modelled import Modelled
    from curate.training.paired import Paired

from curate.runs.job import Job


def learner(job: Job) -> Any:
    """The method of the pipeline, built from its section."""
    made = METHODS[job.pipeline.method.name].made(job.pipeline.method)
    if job.pipeline.loop is None:
        return made
    if job.pipeline.loop.predictions:
        return by_models(job)
    from curate.training.loop import Looped

    return Looped(made.batch_weigher, job.pipeline.loop, share=getattr(made.config, "effective_share", None))


def by_models(job: Job) -> Paired | Modelled:
    """The method of the pipeline, where the models that it trained weigh the rows. Raises ConfigError."""
    loop = job.pipeline.loop
    if loop is None or not loop.predictions:
        raise ConfigError(
            "method", job.pipeline.method.name, "a method that weighs by its models, such as blade", "Use blade."
        )
    from curate.training.modelled import Modelled
    from curate.training.paired import Paired

    made = METHODS[job.pipeline.method.name].made(job.pipeline.method)
    return Modelled(made, loop, job.pipeline.seed) if loop.weigher else Paired(made, loop)

"""tokenize_target: turn the rows of one target into tokens; every row of it must be usable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.stages.identity import target_rows, tokenizer, tokenizer_files
from curate.stages.stage import Cost, Scope, Stage, unknown
from curate.stages.tokenize import BYTES_A_TOKEN, needed

if TYPE_CHECKING:
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome


def work(job: Job, place: int) -> Outcome:
    """Tokens of one target. Raises DataError for a row that has none."""
    from curate.runs import texts, tokens
    from curate.sources import rows
    from curate.storage.outputs import Outcome

    table, section = texts.target_tables(job)[place]
    found = tokens.made(job, table, section)
    rows.first_bad_target(found.reasons, section)
    part = {job.paths.target_tokens(place): tokens.to_table(found)}
    return Outcome(part, rows_in=len(table), facts=tokens.counted(found))


def identity(inputs: Inputs) -> list[Any]:
    """The targets' rows, the tokenizer, and how many tokens are read."""
    pairs = zip(inputs.pipeline.targets, inputs.targets, strict=True)
    seen = [target_rows(section, source) for section, source in pairs]
    return [seen, tokenizer(inputs.settings["model"], inputs.tokenizer)]


def content(job: Job, place: int) -> list[Any]:
    """One target's rows, whatever it is called, and the tokenizer."""
    seen = target_rows(job.pipeline.targets[place], job.targets[place])
    return [*seen, tokenizer(job.record.config["model"], tokenizer_files(job.record.model))]


def cost(estimate: Estimate) -> Cost:
    """Few rows."""
    return Cost(estimate.target_rows, disk=BYTES_A_TOKEN * round(estimate.target_rows * estimate.tokens_per_row))


STAGE = Stage(
    "tokenize_target",
    Scope.PER_TARGET,
    (),
    work,
    applies=needed,
    identity=identity,
    content=content,
    extent=unknown,
    cost=cost,
    reusable=True,
)

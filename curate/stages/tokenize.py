"""tokenize: turn the rows of one shard into tokens, once for all stages, and find the rows that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curate.stages.identity import reading, tokenizer, tokenizer_files
from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    from curate.config import Pipeline
    from curate.runs.job import Job
    from curate.stages.estimate import Estimate
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome

BYTES_A_TOKEN = 5
"""Of a stored token: its id, and whether it takes the loss."""
TOKENS_A_SECOND = 400_000
"""Tokens that one core makes of text."""


def work(job: Job, index: int) -> Outcome:
    """Tokens of one shard; a row that has none is counted with its reason, or refused."""
    from curate.runs import tokens
    from curate.sources import rows
    from curate.storage.outputs import Outcome

    found, pool = tokens.made(job, job.read(index), job.pipeline.pool), job.pipeline.pool
    if pool.on_bad_row == "error":
        rows.first_bad(found.reasons, job.parts[index], pool)
    dropped = sum(reason is not None for reason in found.reasons)
    part = {job.paths.tokens(index): tokens.to_table(found)}
    return Outcome(part, rows_in=len(found.rows), rows_dropped=dropped, facts=tokens.counted(found))


def needed(pipeline: Pipeline) -> bool:
    """Whether any stage reads rows as the model's tokens."""
    return pipeline.reads_model


def identity(inputs: Inputs) -> list[Any]:
    """The tokenizer, and how many tokens are read."""
    return [tokenizer(inputs.settings["model"], inputs.tokenizer)]


def content(job: Job, index: int) -> list[Any]:
    """The columns that are read, as `prepare` saw them, and the tokenizer."""
    from curate.manifest import commits

    read = commits.require(job.paths, "prepare", index).facts["read"]
    pool = job.pipeline.pool
    return [
        read,
        reading(pool),
        pool.on_bad_row,
        tokenizer(job.record.config["model"], tokenizer_files(job.record.model)),
    ]


def cost(estimate: Estimate) -> Cost:
    """One reading of the texts."""
    tokens = round(estimate.rows * estimate.tokens_per_row)
    return Cost(seconds=estimate.reading_seconds + tokens / TOKENS_A_SECOND, disk=BYTES_A_TOKEN * tokens)


STAGE = Stage(
    "tokenize",
    Scope.PER_SHARD,
    ("prepare",),
    work,
    applies=needed,
    identity=identity,
    content=content,
    cost=cost,
    reusable=True,
)

"""render: write the rows of one shard with their weights to the dataset, or with a reason to the dropped rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from curate.stages.stage import Cost, Scope, Stage

if TYPE_CHECKING:
    import pyarrow as pa

    from curate.runs.job import Job
    from curate.sinks.render import Rendered
    from curate.sinks.tally import Tally
    from curate.stages.estimate import Estimate
    from curate.storage.outputs import Content, Outcome


def work(job: Job, index: int) -> Outcome:
    """One part of the dataset, and one of rows that are not in it."""
    import numpy as np

    from curate.runs.weights import labels, selected
    from curate.sinks import render
    from curate.stages import facts
    from curate.storage import tables
    from curate.storage.outputs import Outcome

    weights, table = tables.read_arrow(job.verified("weigh", index)[0]), _with_provenance(job, index)
    chosen, change = selected(job)
    rendered = render.render(
        table,
        change.apply(weights["weight"].to_numpy().astype(np.float32), labels(job, index)),
        weights["reason"].to_pylist(),
        selection=chosen,
        config=job.pipeline.output,
        shard=index,
        token_weights=weights["token_weight"].combine_chunks() if job.pipeline.token_level else None,
    )
    stated = {**(rendered.kept.schema.metadata or {}), "curate": facts.stated(job)}
    contents: dict[Path, Content] = {
        job.paths.data(index, job.record.shards): rendered.kept.replace_schema_metadata(stated)
    }
    dropped, total = job.paths.dropped(index), len(table)
    if rendered.dropped.num_rows:
        contents[dropped] = rendered.dropped
    counted = {"written": rendered.kept.num_rows, "tally": _tally(job, index, rendered)}
    absent = () if rendered.dropped.num_rows else (dropped,)
    return Outcome(contents, absent, rows_in=total, rows_dropped=total - rendered.distinct, facts=counted)


def _tally(job: Job, index: int, rendered: Rendered) -> Tally:
    """Rows of the shard by weight and by source: by the column that the output balances, else by file."""
    from curate.runs.weights import labels
    from curate.sinks import tally
    from curate.sinks.base import weight_columns
    from curate.stages import facts

    output, shard = job.pipeline.output, job.parts[index]
    named = labels(job, index) or [facts.file_names(job).get(shard.file.path, "generated")] * len(rendered.copies)
    column = weight_columns(output, token_level=False).get("weight_column")
    weights = rendered.kept[column].to_numpy() if column else None
    return tally.tally(weights, rendered.copies, named)


def _with_provenance(job: Job, index: int) -> pa.Table:
    """The rows of a shard, and where each is from if some are generated."""
    import pyarrow as pa

    from curate.sources import base as sources
    from curate.stages.facts import provenance

    table = job.read(index)
    if not job.record.generated:
        return table
    if index >= len(job.shards):
        own = sources.read(job.parts[index], provenance(job))
    else:
        nothing = [pa.nulls(len(table), field.type) for field in provenance(job)]
        own = pa.table([pa.array([False] * len(table), pa.bool_()), *nothing[1:]], provenance(job))
    columns = [*table.columns, *own.columns]
    return pa.table(columns, pa.schema([*table.schema, *own.schema], table.schema.metadata))


def cost(estimate: Estimate) -> Cost:
    """One reading of the files, and one writing."""
    return Cost(seconds=estimate.reading_seconds, disk=estimate.bytes_in + estimate.token_weight_bytes)


STAGE = Stage("render", Scope.PER_SHARD, ("select",), work, cost=cost)

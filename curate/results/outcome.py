"""What became of every sample of a pool, from committed tables: the frame behind `inspect` and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from curate.errors import ConfigError, IntegrityError
from curate.manifest import commits, dataset, generations, run
from curate.reports import view
from curate.reports.figures import size
from curate.reports.generations import lines
from curate.reports.preferences import Preference, preferences
from curate.results.status import status
from curate.runs.reading import of_run
from curate.sinks.selection import Counts, Floats, Selection, counts
from curate.sources import schema
from curate.sources.columns import recognised
from curate.sources.config import PoolConfig
from curate.storage import atomic, records, tables
from curate.storage.paths import RunPaths

LEARNED = {"shard": pl.Int64(), "row": pl.Int64(), "weight": pl.Float32(), "reason": pl.String()}
SHOWN = 10


def pool(root: Path) -> pl.LazyFrame:
    """Every sample in order: shard, row, weight and reason (null unless set aside), then the pool's own columns.

    Scanned shard by shard and only for the columns asked for: memory does not grow with the pool.

    Raises:
        ConfigError: the run is not finished.
    """
    manifest = dataset.load(root)
    if manifest is None:
        raise ConfigError(str(root), "no manifest", "a finished run", "Finish it with `curate run`.")
    paths = RunPaths(root)
    copies = _copies(root, paths)
    original = _columns(paths, manifest)
    taken = {name: f"{name} (pool)" if name in LEARNED else name for name in original}

    def shards(
        columns: list[str] | None, predicate: pl.Expr | None, limit: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = [name for name in original if columns is None or taken[name] in columns]
        for index in range(manifest["shards"]):
            frame = _shard(paths, index, manifest["shards"], copies=copies, columns=wanted).rename(
                {name: taken[name] for name in wanted}
            )
            frame = frame if columns is None else frame.select(columns)
            yield frame if predicate is None else frame.filter(predicate)

    return register_io_source(shards, schema={**LEARNED, **{taken[name]: kind for name, kind in original.items()}})


def write_report(root: Path) -> Path:
    """Write report.html from what is committed. Raises ConfigError if the run is not finished."""
    from curate.reports import html  # charts take half a second to import, and `curate inspect` draws none

    path = RunPaths(root).report
    atomic.write_bytes(path, html.render(_view(root)).encode())
    return path


def _columns(paths: RunPaths, manifest: dict[str, Any]) -> dict[str, pl.DataType]:
    first = tables.read_schema(paths.data(0, manifest["shards"]))
    own = {manifest["weight_column"], manifest.get("token_weight_column")}
    names = [name for name in first.names if name not in own]
    return dict(pl.from_arrow(pa.Table.from_batches([], first).select(names)).schema)  # pyright: ignore[reportAttributeAccessIssue]


def _copies(root: Path, paths: RunPaths) -> Callable[[int, Floats], Counts]:
    """How often each row of a shard was written, of its index and the weights that were learned."""
    try:
        content = records.parse(paths.selection.read_bytes())
        chosen, change = Selection.from_json(content["selection"]), content["adjustment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(paths.selection, f"no selection ({error})") from error
    if chosen.mode == "weighted" or (change["cap"] is None and not change["groups"]):
        return partial(counts, chosen)
    from curate.runs.job import open_job  # groups are read from the pool; nothing else here needs it, or torch
    from curate.runs.weights import labels, selected

    job = open_job(str(root))
    return lambda index, learned: counts(chosen, index, selected(job)[1].apply(learned, labels(job, index)))


def _shard(
    paths: RunPaths, index: int, total: int, *, copies: Callable[[int, Floats], Counts], columns: list[str]
) -> pl.DataFrame:
    """The rows of one shard, put back in order from its kept and its dropped rows."""
    learned = tables.read_arrow(paths.weights(index))
    made = copies(index, learned["weight"].to_numpy().astype(np.float32))
    frame = pl.DataFrame({"row": np.arange(len(made))}).with_columns(
        shard=pl.lit(index, pl.Int64),
        weight=pl.from_arrow(learned["weight"]),  # pyright: ignore[reportArgumentType]
        reason=pl.from_arrow(learned["reason"]),  # pyright: ignore[reportArgumentType]
    )
    if not columns:
        return frame.select(*LEARNED)
    kept = _rows(paths.data(index, total), columns, np.repeat(np.arange(len(made)), made))
    dropped = _rows(paths.dropped(index), columns, np.flatnonzero(made == 0))
    own = pl.concat([part for part in (kept, dropped) if part is not None]).unique("_row", keep="first").sort("_row")
    return pl.concat([frame.select(*LEARNED), own.drop("_row")], how="horizontal")


def _rows(path: Path, columns: list[str], rows: np.ndarray) -> pl.DataFrame | None:
    if not path.is_file():
        if len(rows):
            raise _damaged(path, "no such file")
        return None
    frame = pl.from_arrow(tables.read_parquet(path, columns))
    return frame.with_columns(_row=pl.Series(rows))  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]


def _damaged(path: Path, found: str) -> IntegrityError:
    fix = "Run the command that made the run again: what is missing or wrong is made anew."
    return IntegrityError(str(path), found, "what was committed", fix)


def _view(root: Path) -> view.View:
    record, manifest, frame = run.load(root), dataset.load(root) or {}, pool(root)
    settings = record.config["report"]
    present = frame.collect_schema().names()
    columns = [name for name in settings["columns"] if name in present]
    section = recognised(PoolConfig.model_validate(record.config["pool"]), schema.decode(record.pool["schema"])).fields
    text = section.get("text") or section.get("completion")
    read = of_run(RunPaths(root), record.stages, record.shards - record.generated)
    top, bottom = view.samples(frame, SHOWN, columns=columns, text=text, show_text=settings["show_text"])
    absent = [f"The pool has no column {name!r} to group by." for name in settings["columns"] if name not in present]
    reasons = frame.filter(pl.col("reason").is_not_null()).group_by("reason").agg(pl.len()).sort("reason").collect()
    fits = commits.load(RunPaths(root), "fit", 0)
    return view.View(
        title=f"{manifest['rows_in']:,} samples, weighted by {manifest['method']}",
        facts=_facts(manifest, record),
        summary=view.summary(frame),
        histogram=view.histogram(frame),
        groups=view.groups(frame, columns),
        group_columns=columns,
        top=top,
        bottom=bottom,
        stages=[view.Stage(line.stage, line.total, line.rows, line.seconds) for line in status(root).stages],
        dropped=dict(reasons.iter_rows()),
        notes=[*absent, *read.lines(record.config["model"]), *(fits.facts.get("notes", []) if fits else [])],
        generations=lines(root),
        preferences=_preferences(root, frame, columns),
    )


def _preferences(root: Path, frame: pl.LazyFrame, columns: Sequence[str]) -> list[Preference]:
    """What a weighting model came to prefer, if the run has one."""
    paths, newest = RunPaths(root), generations.newest(root)
    state = paths.calibration(newest) if newest else paths.state
    arrays = tables.read_arrays(state) if state.is_file() else {}
    if "preferences/row" not in arrays:
        return []
    followed = (
        frame.select(columns).with_row_index("_row").filter(pl.col("_row").is_in(arrays["preferences/row"].tolist()))
    )
    found = (
        followed.sort("_row").select(pl.col(columns).cast(pl.String).fill_null("(none)")).collect() if columns else None
    )
    return preferences(arrays, {} if found is None else {name: found[name].to_list() for name in columns})


def _facts(manifest: dict[str, Any], record: run.RunRecord) -> list[tuple[str, str]]:
    written = sum(part["size"] for part in manifest["parts"])
    lines = {
        "method": f"{_method(manifest)} ({manifest['paper']})",
        "proxy": manifest["model"],
        "output": manifest["rule"] or manifest["mode"],
        "rows": f"{manifest['rows_in']:,} in the pool, {manifest['rows_out']:,} written",
        "dataset": f"{size(written)} in {record.shards} parts",
        "normalisation": manifest["normalisation"],
        "seed": str(record.config["seed"]),
        "config": manifest["config_sha256"][:12],
        "curate": manifest["version"],
    }
    return [(label, value) for label, value in lines.items() if value]


def _method(manifest: dict[str, Any]) -> str:
    """The method, and its package if that is not curate."""
    package = manifest.get("package")
    return f"{manifest['method']} of {package}" if package else manifest["method"]

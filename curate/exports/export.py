"""`curate export`: the dataset of a finished run as one trainer reads it, part by part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.conversations import Renderer
from curate.errors import ConfigError, IntegrityError
from curate.exports.base import Exporter, Layout, Made, Rows, Whole, weights_of
from curate.exports.registry import Entry, find
from curate.manifest import commits, dataset, exports
from curate.manifest.commits import Commit, PartRecord
from curate.models import resolve
from curate.models.loading import load_tokenizer
from curate.reports.progress import Observer, Silent
from curate.runs.job import Job, open_job
from curate.sinks.selection import ShardWeights
from curate.sources.tokenizing import tokenize
from curate.sources.tokens import Tokens
from curate.storage import atomic, lock, tables
from curate.storage.atomic import Part
from curate.storage.fingerprint import fingerprint
from curate.storage.paths import RunPaths

STAGE = "export"
WHOLE_ROW = 2**31
"""Characters and tokens of a row that is not cut."""


def export(root: Path, name: str, *, observer: Observer | None = None) -> Path:
    """Write the dataset of a finished run for one trainer, into `exports/<name>` of the run directory.

    Memory is one part of the dataset. An export that was interrupted goes on with the part it was at; the final name appears
    when all files are there. What was exported before of the same dataset is left as it is, if its files are.

    Args:
        root: run directory.
        name: of the trainer; `exports/registry.py` has them.
        observer: hears about progress.

    Returns:
        The directory; its `export.json` lists every file with its hash, and says what the trainer honours.

    Raises:
        ConfigError: no such trainer, or the run is not finished.
        ModelError: the run names no model, and tokens are needed.
        IntegrityError: a part of the dataset is not what the manifest says.
        ResourceError: no room, or another process works in this directory.
    """
    entry, paths = find(name), RunPaths(root)
    manifest = dataset.load(root)
    if manifest is None:
        raise ConfigError(str(root), "no manifest", "a finished run", "Finish it with `curate run`.")
    with lock.exclusive(paths.lock):
        identity = fingerprint(name, manifest["content_sha256"], version("curate"), *entry.identity)
        place = paths.export(name)
        if _is_done(place, root, identity):
            return place
        _Export(open_job(str(root)), manifest, entry, identity).write(observer or Silent())
    return place


def _is_done(place: Path, root: Path, identity: str) -> bool:
    try:
        content = exports.load(place)
    except IntegrityError:
        return False  # it is written anew
    return content is not None and content["identity"] == identity and not exports.folder_problems(place, root)


@dataclass(frozen=True)
class _Export:
    """One dataset on its way to one trainer."""

    job: Job
    manifest: dict[str, Any]
    entry: Entry
    identity: str

    @property
    def _folder(self) -> Path:
        return self.job.paths.unfinished_export(self.entry.name)

    @cached_property
    def _parts(self) -> list[PartRecord]:
        listed = [PartRecord(**part) for part in self.manifest["parts"]]
        return [part for part in listed if part.path.startswith("dataset/data/")]

    @cached_property
    def layout(self) -> Layout:
        """Which columns of the dataset mean what."""
        facts = self.manifest
        return Layout(self.job.pipeline.pool.fields, facts["weight_column"], facts.get("token_weight_column"))

    def write(self, observer: Observer) -> None:
        """Every part that is not there yet, then what names them, then the final name."""
        self._forget_others()
        exporter = self.entry.made(Whole(self.layout, self._weights, self._tokenizer))
        observer.stage("export", self.manifest["rows_out"])
        made = []
        for index in range(len(self._parts)):
            made.append(self._made(exporter, index))
            observer.advance(made[-1].rows)
        written = [part for each in made for part in each.parts] + exporter.close(made, self._folder)
        observer.done()
        exports.write(self._folder, self._stated(made), [part for part in written if part.path.exists()])
        atomic.remove_tree(self._folder / "commits")
        atomic.settle(self._folder, self.job.paths.export(self.entry.name))

    def _forget_others(self) -> None:
        """Remove what an interrupted export of another dataset left."""
        first = commits.load(RunPaths(self._folder), STAGE, 0)
        if first is None or first.fingerprint != self.identity:
            atomic.remove_tree(self._folder)
        else:
            atomic.sweep(self._folder)

    def _made(self, exporter: Exporter, index: int) -> Made:
        """One part, written now or before."""
        paths = RunPaths(self._folder)
        if commits.is_done(paths, STAGE, index, self.identity):
            record = commits.require(paths, STAGE, index)
            parts = tuple(Part(self._folder / part.path, part.size, part.sha256) for part in record.parts)
            return Made(parts, record.facts["rows"], record.facts["own"])
        rows = self._rows(index)
        made = exporter.part(rows, self._folder)
        facts = {"rows": made.rows, "own": made.facts}
        record = Commit(STAGE, index, self.identity, len(rows.table), len(rows.table), facts=facts)
        commits.commit(paths, record, made.parts)
        return made

    def _rows(self, index: int) -> Rows:
        """A part of the dataset, hashed before it is read."""
        part = self._parts[index]
        problems = commits.part_problems(self.job.paths.root, part, "the manifest")
        if problems:
            fix = "Run `curate run` again: it will be recomputed."
            raise IntegrityError(part.path, "; ".join(problems), "the bytes that were sealed", fix)
        path = self.job.paths.root / part.path
        return Rows(index, len(self._parts), path, tables.read_parquet(path))

    def _weights(self) -> Iterator[ShardWeights]:
        column = self.layout.weight
        for part in self._parts:
            path = self.job.paths.root / part.path
            first = [column] if column is not None else [*self.layout.fields.values()]
            yield ShardWeights(weights_of(tables.read_parquet(path, first), self.layout))

    def _tokenizer(self) -> RunTokenizer:
        return RunTokenizer(self.job)

    def _stated(self, made: Sequence[Made]) -> dict[str, Any]:
        return {
            "trainer": self.entry.name,
            **({"package": self.entry.provider} if self.entry.outside else {}),
            "honours": self.entry.honours,
            "beware": self.entry.beware,
            "identity": self.identity,
            "dataset": self.manifest["content_sha256"],
            "version": version("curate"),
            "rows_in": self.manifest["rows_out"],
            "rows_out": sum(each.rows for each in made),
        }


class RunTokenizer:
    """The tokenizer of a run's model, on rows of its dataset."""

    def __init__(self, job: Job) -> None:
        self._config, self._model = job.pipeline.pool, job.model_config
        self._tokenizer = load_tokenizer(job.tokenizer_path if job.record.model else _found(job))

    @property
    def end(self) -> int | None:
        """Token that ends a text."""
        return self._tokenizer.eos_token_id  # pyright: ignore[reportReturnType]

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return len(self._tokenizer)

    def given(self, turns: list[Any], tools: Any, options: Any) -> list[dict[str, Any]]:
        """A conversation in the form that the model's chat template takes. Raises RowError."""
        return self._renderer.given(turns, tools, options)

    @cached_property
    def _renderer(self) -> Renderer:
        return Renderer(self._tokenizer)

    def __call__(self, table: pa.Table, *, cut: bool = True) -> Sequence[Tokens | None]:
        """Tokens of rows, as the run cut them, or whole."""
        config = self._config if cut else self._config.model_copy(update={"max_chars": WHOLE_ROW})
        limit = self._model.max_tokens if cut else WHOLE_ROW
        return tokenize(table, config, self._tokenizer, max_tokens=limit, long_rows=self._model.long_rows).rows


def _found(job: Job) -> Path:
    """The tokenizer that the `model` section names, where the method had no use for a model. Raises ModelError."""
    return resolve.resolve(job.model_config.model_copy(update={"from_scratch": True})).tokenizer

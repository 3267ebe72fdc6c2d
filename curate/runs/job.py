"""A run as its tasks see it, on whatever worker they run: the config, the inputs, and what is committed already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from curate import config
from curate.config import Pipeline
from curate.errors import DataError, IntegrityError, ModelError
from curate.manifest import commits
from curate.manifest import run as runs
from curate.manifest.events import Events
from curate.models.base import ModelConfig
from curate.sources import base as sources
from curate.sources.base import Source
from curate.storage.paths import RunPaths
from curate.types import InputFile, Shard

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    pass


@dataclass(frozen=True)
class Job:
    """One run: what it was asked, what it was given, and access to what its stages committed."""

    paths: RunPaths
    record: runs.RunRecord
    pipeline: Pipeline
    source: Source
    targets: list[Source]
    shards: list[Shard]

    @property
    def parts(self) -> list[Shard]:
        """Shards of the pool, and of the rows that `fit` generated once it has: what becomes the dataset."""
        fits = commits.load(self.paths, "fit", 0) if self.record.generated else None
        if fits is None or fits.fingerprint != self.record.stages["fit"]:
            return self.shards
        part = next(part for part in fits.parts if self.paths.root / part.path == self.paths.generated)
        rows, size = fits.facts["generated"], self.pipeline.pool.shard_rows
        file = InputFile(str(self.paths.generated), "parquet", part.sha256, part.size, rows)
        first = len(self.shards)
        cut = [(place, place * size) for place in range(self.record.generated)]
        return [
            *self.shards,
            *(
                Shard(first + place, self.source.fingerprint, file, start, max(0, min(size, rows - start)))
                for place, start in cut
            ),
        ]

    @property
    def events(self) -> Events:
        """The run's log, for what a long task has to say."""
        return Events(self.paths.events)

    def verified(self, stage: str, index: int, *, within: Path | None = None) -> list[Path]:
        """Paths of the parts of a committed task, re-hashed; wrong ones are set aside. Raises IntegrityError.

        Args:
            stage: stage of the task.
            index: its index.
            within: look at the parts at or below this path only.
        """
        record = commits.require(self.paths, stage, index)
        if within is not None:
            own = (part for part in record.parts if (self.paths.root / part.path).is_relative_to(within))
            record = replace(record, parts=tuple(own))
        notes = commits.quarantine(self.paths, record)
        if notes:
            fix = "It was set aside: run the same command again and it will be recomputed."
            raise IntegrityError(f"stage {stage}, shard {index}", "; ".join(notes), "the committed bytes", fix)
        return [self.paths.root / part.path for part in record.parts]

    def read(self, index: int) -> pa.Table:
        """All rows of a shard. Raises DataError if they are not the rows that `prepare` saw."""
        table = sources.read(self.parts[index], self.source.schema)
        if sources.content_hash(table) != commits.require(self.paths, "prepare", index).facts["content"]:
            raise DataError(
                self.parts[index].file.path,
                f"other content in shard {index} than when this run began",
                "an input that does not change",
                "Restore the file, or start a new run with another --run-dir.",
            )
        return table

    def place(self, index: int, row: int) -> str:
        """A row of a shard as messages name it: its file and its row there."""
        shard = self.parts[index]
        return f"{shard.file.path}, row {shard.start + row}"

    @property
    def model_config(self) -> ModelConfig:
        """The `model` section. Raises ModelError if there is none."""
        if self.pipeline.model is None:
            raise ModelError("model", "no such section", "a proxy", "Add `model: {name: ...}` to the pipeline file.")
        return self.pipeline.model

    @property
    def model_path(self) -> Path:
        """Where the model as given lies."""
        return Path((self.record.model or {})["path"])

    @property
    def tokenizer_path(self) -> Path:
        """Where its tokenizer lies."""
        return Path((self.record.model or {})["tokenizer"])

    @property
    def adapter_path(self) -> Path | None:
        """Where the adapter lies that is merged into its weights, None without one."""
        found = (self.record.model or {}).get("adapter")
        return Path(found) if found else None


def open_job(run_dir: str) -> Job:
    """The job of a run directory; parsed once a worker as long as run.json stays the same."""
    return _open_job(run_dir, RunPaths(Path(run_dir)).run.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _open_job(run_dir: str, _changed: int) -> Job:
    record = runs.load(Path(run_dir))
    pipeline = config.validate(record.config)
    source = sources.source_from_dict(record.pool)
    targets = [sources.source_from_dict(target) for target in record.targets]
    pipeline = pipeline.reading(source.schema, [target.schema for target in targets])
    shards = sources.shards(source, shard_rows=pipeline.pool.shard_rows)
    return Job(RunPaths(Path(run_dir)), record, pipeline, source, targets, shards)

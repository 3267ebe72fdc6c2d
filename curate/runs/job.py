"""A run as its tasks see it, on whatever worker they run: the config, the inputs, and what is committed already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from curate import config
from curate.config import Pipeline
from curate.config.online import OnlineConfig
from curate.errors import ConfigError, DataError, IntegrityError, ModelError
from curate.features import store
from curate.manifest import commits
from curate.manifest import run as runs
from curate.manifest.events import Events
from curate.methods.guarded import check_mean
from curate.methods.registry import METHODS
from curate.models.base import ModelConfig
from curate.sinks import render, tally
from curate.sinks.adjustment import Adjustment, labels
from curate.sinks.base import weight_columns
from curate.sinks.selection import Selection, ShardWeights
from curate.sources import base as sources
from curate.sources import rows
from curate.sources.base import Source
from curate.storage import tables
from curate.storage.fingerprint import fingerprint
from curate.storage.paths import RunPaths
from curate.types import Features, InputFile, Shard

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    from curate.training.modelled import Modelled
    from curate.training.paired import Paired

STATED = ("method", "package", "model", "revision", "target_sha256", "config_sha256", "version", "normalisation")
"""Facts that every part of the dataset carries in its metadata."""


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

    def method(self) -> Any:
        """The method of the pipeline, built from its section."""
        made = METHODS[self.pipeline.method.name].made(self.pipeline.method)
        if self.pipeline.loop is None:
            return made
        if self.pipeline.loop.predictions:
            return self.by_models()
        from curate.training.loop import Looped

        return Looped(made.batch_weigher, self.pipeline.loop, share=getattr(made.config, "effective_share", None))

    @property
    def online(self) -> OnlineConfig:
        """The `online` section. Raises ConfigError if there is none."""
        if self.pipeline.online is None:
            raise ConfigError("online", "no such section", "how generations are made", "Add `online: {}` to the file.")
        return self.pipeline.online

    def by_models(self) -> Paired | Modelled:
        """The method of the pipeline, where the models that it trained weigh the rows. Raises ConfigError."""
        loop = self.pipeline.loop
        if loop is None or not loop.predictions:
            raise ConfigError("method", self.pipeline.method.name, "a method that weighs by its models", "Use blade.")
        from curate.training.modelled import Modelled
        from curate.training.paired import Paired

        made = METHODS[self.pipeline.method.name].method()(self.pipeline.method)
        return Modelled(made, loop, self.pipeline.seed) if loop.weigher else Paired(made, loop)

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
    def proxy_is_made(self) -> bool:
        """Whether the proxy differs from the model as given, so that the run keeps a copy of its own."""
        settings = self.model_config
        return bool(settings.warmup or settings.lora or settings.from_scratch or self.model_path.is_file())

    def stored(self, index: int) -> tuple[Features, list[str | None], np.ndarray | None]:
        """Features of a shard for the method, why rows are set aside, and token counts if there are any."""
        if not self.pipeline.reads_features:
            reasons = rows.check(self.read(index), self.pipeline.pool)
            valid = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
            return Features(index, len(reasons), valid), reasons, None
        table = tables.read_arrow(self.verified("featurize", index)[0])
        counted = table["tokens"].to_numpy() if self.pipeline.features.needs_model else None
        return store.from_table(table, index), table["reason"].to_pylist(), counted

    def learned(self, index: int) -> ShardWeights:
        """The weights of one shard as the method gave them."""
        table = tables.read_arrow(self.verified("weigh", index)[0])
        counts = table["tokens"].to_numpy().astype(np.int64) if "tokens" in table.column_names else None
        return ShardWeights(table["weight"].to_numpy().astype(np.float32), counts)

    def check_mean(self) -> None:
        """Whether the weights of another package's method have mean 1 over the pool. Raises ModelError."""
        method = METHODS[self.pipeline.method.name]
        if method.outside:
            check_mean(method, (shard.weights for shard in self.shard_weights()))

    def shard_weights(self) -> Iterator[ShardWeights]:
        """The weights of every shard, in order."""
        return (self.learned(index) for index in range(self.record.shards))

    @cached_property
    def file_names(self) -> dict[str, str]:
        """What the card calls each file of the pool."""
        return tally.names(sorted({shard.file.path for shard in self.shards}))

    def labels(self, index: int) -> list[str] | None:
        """Group of every row of a shard, where the output balances groups."""
        balance = self.pipeline.output.balance
        if balance is None:
            return None
        return labels(sources.read(self.parts[index], self.source.schema, [balance.column]), balance.column)

    def labelled_weights(self) -> Iterator[tuple[ShardWeights, list[str] | None]]:
        """The weights of every shard with the groups of its rows, in order."""
        for index, shard in enumerate(self.shard_weights()):
            yield shard, self.labels(index)

    def written_weights(self) -> Iterator[ShardWeights]:
        """The weights of every shard as `select` adjusted them: what rows are chosen by."""
        change = self.selected()[1]
        return (change.of(*found) for found in self.labelled_weights())

    def written(self, index: int) -> ShardWeights:
        """The same for one shard."""
        return self.selected()[1].of(self.learned(index), self.labels(index))

    def selected(self) -> tuple[Selection, Adjustment]:
        """What `select` decided."""
        content = json.loads(self.verified("select", 0)[0].read_bytes())
        return Selection.from_json(content["selection"]), Adjustment(**content["adjustment"])

    @property
    def facts(self) -> dict[str, Any]:
        """What card and manifest state about this run; nothing here depends on where or when it ran."""
        output, method = self.pipeline.output, METHODS[self.pipeline.method.name]
        model = self.record.model or self.record.encoder or {}
        kinds = {"weight_column": "float", "token_weight_column": "list<halffloat>"}
        named = weight_columns(output, token_level=self.pipeline.token_level)
        weight = [[name, kinds[key]] for key, name in named.items()]
        return {
            "name": f"Dataset weighted by {method.name}",
            "method": method.name,
            **({"package": method.provider} if method.outside else {}),
            "paper": method.paper,
            "model": Path(model["name"]).name if model and Path(model["name"]).exists() else model.get("name"),
            "revision": model.get("revision") or model.get("fingerprint"),
            "target_sha256": fingerprint([target.fingerprint for target in self.targets]) if self.targets else None,
            "config_sha256": runs.config_hash(self.record.config),
            "version": self.record.curate,
            "mode": output.mode,
            "rule": output.rule,
            "normalisation": output.normalisation,
            "weight_column": named.get("weight_column"),
            **({"token_weight_column": named["token_weight_column"]} if "token_weight_column" in named else {}),
            "columns": [[field.name, str(field.type)] for field in [*self.source.schema, *self.provenance]] + weight,
            "pool_sha256": self.source.fingerprint,
            "shards": self.record.shards,
            "stages": self.record.stages,
            **({"kept_proxy": self.record.kept_proxy} if self.record.kept_proxy else {}),
        }

    @property
    def provenance(self) -> pa.Schema:
        """Columns that say of every row whether and how it was generated; none where nothing is."""
        return render.PROVENANCE if self.record.generated else pa.schema([])

    @property
    def stated(self) -> str:
        """The facts that every part of the dataset carries, as JSON."""
        return json.dumps({name: self.facts[name] for name in STATED if name in self.facts}, sort_keys=True)


class StoredProblem:
    """The pool's stored features and the targets', as `fit` reads them: one shard in memory at a time."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.notes: list[str] = []
        self.seed = job.pipeline.seed
        self.rows = sum(commits.require(job.paths, self._stage, index).rows_out for index in range(len(job.shards)))
        if job.pipeline.reads_features:
            for index in range(len(job.shards)):  # hashed once; the passes of `fit` read what was found good
                job.verified("featurize", index)

    @property
    def _stage(self) -> str:
        return "featurize" if self._job.pipeline.reads_features else "prepare"

    @cached_property
    def targets(self) -> Mapping[str, Tensor]:
        """Feature rows of every named target, float32 [m, k]."""
        parts = [self._job.verified("target", place)[0] for place in range(len(self._job.targets))]
        names = [section.name for section in self._job.pipeline.targets]
        return {
            name: torch.from_numpy(store.rows(tables.read_arrow(part))) for name, part in zip(names, parts, strict=True)
        }

    def shards(self) -> Iterator[Features]:
        """A fresh pass over the pool."""
        for index in range(len(self._job.shards)):
            if self._job.pipeline.reads_features:
                yield store.from_table(tables.read_arrow(self._job.paths.features(index)), index)
            else:
                yield self._job.stored(index)[0]

    def note(self, text: str) -> None:
        """Keep a line for the commit record, and say it now."""
        self.notes.append(text)
        self._job.events.write("note", stage="fit", text=text)


def open_job(run_dir: str) -> Job:
    """The job of a run directory; parsed once a worker as long as run.json stays the same."""
    return _open_job(run_dir, RunPaths(Path(run_dir)).run.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _open_job(run_dir: str, _changed: int) -> Job:
    record = runs.load(Path(run_dir))
    pipeline = config.validate(record.config)
    source = sources.source_from_dict(record.pool)
    targets = [sources.source_from_dict(target) for target in record.targets]
    shards = sources.shards(source, shard_rows=pipeline.pool.shard_rows)
    return Job(RunPaths(Path(run_dir)), record, pipeline, source, targets, shards)

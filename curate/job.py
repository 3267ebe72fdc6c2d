"""A run as its tasks see it, on whatever worker they run: the config, the inputs, and what is committed already."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from curate import config
from curate.config import Pipeline
from curate.errors import DataError, IntegrityError, ModelError
from curate.features import store
from curate.features.gradients import NO_LOSS, ShardFeatures, collate, featurize
from curate.gradients import persample
from curate.gradients.preconditioner import Preconditioner, make_preconditioner
from curate.manifest import commits
from curate.manifest import run as runs
from curate.manifest.events import Events
from curate.models import loading, warmup
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.registry import METHODS
from curate.sinks.selection import Selection, ShardWeights
from curate.sources import base as sources
from curate.sources import layout, rows, tokens
from curate.sources.base import Source
from curate.sources.config import SourceConfig
from curate.storage import tables
from curate.storage.fingerprint import fingerprint
from curate.storage.paths import RunPaths
from curate.types import Batch, Features, Shard
from curate.weights.base import no_valid_row

STATED = ("method", "model", "revision", "target_sha256", "config_sha256", "version", "normalisation")
"""Facts that every part of the dataset carries in its metadata."""

WARMUP_SHARDS = 64
"""Shards that a warm-up samples its rows from, the same number from each: a large pool need not be read for it."""
WARMUP_BLOCK = 128
"""Rows that are sorted by length among themselves: little padding, and batches that are still random mixtures."""


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
    def events(self) -> Events:
        """The run's log, for what a long task has to say."""
        return Events(self.paths.events)

    def method(self) -> Any:
        """The method of the pipeline, built from its section."""
        return METHODS[self.pipeline.method.name].method()(self.pipeline.method)

    def verified(self, stage: str, index: int) -> list[Path]:
        """Paths of the parts of a committed task, re-hashed; wrong ones are set aside. Raises IntegrityError."""
        record = commits.require(self.paths, stage, index)
        notes = commits.quarantine(self.paths, record)
        if notes:
            fix = "It was set aside: run the same command again and it will be recomputed."
            raise IntegrityError(f"stage {stage}, shard {index}", "; ".join(notes), "the committed bytes", fix)
        return [self.paths.root / part.path for part in record.parts]

    def read(self, index: int) -> pa.Table:
        """All rows of a shard. Raises DataError if they are not the rows that `prepare` saw."""
        table = sources.read(self.shards[index], self.source.schema)
        if sources.content_hash(table) != commits.require(self.paths, "prepare", index).facts["content"]:
            raise DataError(
                self.shards[index].file.path,
                f"other content in shard {index} than when this run began",
                "an input that does not change",
                "Restore the file, or start a new run with another --run-dir.",
            )
        return table

    def place(self, index: int, row: int) -> str:
        """A row of a shard as messages name it: its file and its row there."""
        return f"{self.shards[index].file.path}, row {self.shards[index].start + row}"

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

    def language_model(self) -> LanguageModel:
        """The proxy, loaded once a worker."""
        path = self.paths.proxy if self.proxy_is_made else self.model_path
        commit = commits.require(self.paths, "proxy")
        return _language_model(self.paths.root, path, commit.fingerprint)

    def warmup_batches(self, language_model: LanguageModel) -> Iterator[Batch]:
        """Batches of a random sample of the pool, shuffled, over and over."""
        settings = self.model_config.warmup
        if settings is None:
            return
        generator = np.random.default_rng([self.pipeline.seed, 1])
        chosen = generator.permutation(len(self.shards))[:WARMUP_SHARDS]
        sample, quota = list[tokens.Tokens](), 0
        for index in chosen:
            table = self.read(int(index))
            found = self._tokens(table, self.pipeline.pool, language_model, partial(self.place, int(index)))
            usable = [row for row in found if row is not None]
            if usable and not quota:
                mean = sum(len(row.ids) for row in usable) / len(usable)
                quota = math.ceil(settings.tokens / mean / len(chosen))
            sample += [usable[place] for place in generator.permutation(len(usable))[:quota]]
        if not sample:
            raise no_valid_row()
        while True:  # until the budget is used up
            order = generator.permutation(len(sample))
            for start in range(0, len(order), WARMUP_BLOCK):
                block = [sample[row] for row in order[start : start + WARMUP_BLOCK]]
                plan = layout.batches([len(row.ids) for row in block], settings.batch_tokens)
                yield from (_batch(plan[place], block) for place in generator.permutation(len(plan)))

    def features_of(
        self, table: pa.Table, section: SourceConfig, *, place: Callable[[int], str], preconditioned: bool
    ) -> ShardFeatures:
        """Features of the rows of a table, in order; `place` names a row for messages."""
        language_model, settings = self.language_model(), self.pipeline.features
        made = commits.require(self.paths, "proxy").fingerprint
        preconditioner = _preconditioner(self.paths.root, made) if preconditioned else None
        found = self._tokens(table, section, language_model, place)
        reasons = rows.check(table, section)
        reasons = [reason or (NO_LOSS if row is None else None) for reason, row in zip(reasons, found, strict=True)]
        usable = [position for position, row in enumerate(found) if row is not None]
        plan = layout.batches([len(row.ids) for row in found if row is not None], settings.batch_tokens)
        return featurize(
            (_batch([usable[place] for place in batch], found) for batch in plan),
            lambda batch: persample.features(
                language_model, batch, projection=settings.projection, preconditioner=preconditioner
            ),
            reasons=reasons,
            dim=settings.projection.dim,
        )

    def target_features(self, place: int) -> ShardFeatures:
        """Plain gradient features of one target; every row of a target must be usable."""
        source, section = self.targets[place], self.pipeline.targets[place]
        table = pa.concat_tables(
            [
                sources.read(shard, source.schema)
                for shard in sources.shards(source, shard_rows=self.pipeline.pool.shard_rows)
            ]
        ).slice(0, section.max_rows)
        where = f"target {section.name} ({section.path}), row {{}}".format
        features = self.features_of(table, section, place=where, preconditioned=False)
        for row, reason in enumerate(features.reasons):
            if reason is not None:
                fix = "Remove it: a target is small, and every sample of it must be usable."
                raise DataError(where(row), reason, "a usable sample", fix)
        return features

    def stored(self, index: int) -> tuple[Features, list[str | None], np.ndarray | None]:
        """Features of a shard for the method, why rows are set aside, and token counts if there are any."""
        if not self.pipeline.reads_features:
            reasons = rows.check(self.read(index), self.pipeline.pool)
            valid = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
            return Features(index, len(reasons), valid), reasons, None
        table = tables.read_arrow(self.verified("featurize", index)[0])
        return store.from_table(table, index), table["reason"].to_pylist(), table["tokens"].to_numpy()

    def count_tokens(self, index: int) -> list[int]:
        """Tokens of every row of a shard under the proxy's tokenizer; 0 for rows set aside."""
        found = self._tokens(self.read(index), self.pipeline.pool, self.language_model(), partial(self.place, index))
        return [0 if row is None else len(row.ids) for row in found]

    def shard_weights(self) -> Iterator[ShardWeights]:
        """The weights of every shard, in order."""
        for index in range(len(self.shards)):
            table = tables.read_arrow(self.verified("weigh", index)[0])
            counts = table["tokens"].to_numpy().astype(np.int64) if "tokens" in table.column_names else None
            yield ShardWeights(table["weight"].to_numpy().astype(np.float32), counts)

    def selection(self) -> Selection:
        """What `select` decided."""
        return Selection.from_json(json.loads(self.verified("select", 0)[0].read_bytes()))

    @property
    def feature_spec(self) -> dict[str, str]:
        """How features were made; kept in every feature part."""
        return {"curate.features": json.dumps(self.pipeline.features.model_dump(mode="json"), sort_keys=True)}

    @property
    def facts(self) -> dict[str, Any]:
        """What card and manifest state about this run; nothing here depends on where or when it ran."""
        output, method = self.pipeline.output, METHODS[self.pipeline.method.name]
        model = self.record.model or {}
        weight = [] if output.mode == "resampled" else [[output.weight_column, "float"]]
        return {
            "name": f"Dataset weighted by {method.name}",
            "method": method.name,
            "paper": method.paper,
            "model": Path(model["name"]).name if model and Path(model["name"]).exists() else model.get("name"),
            "revision": model.get("revision") or model.get("fingerprint"),
            "target_sha256": fingerprint([target.fingerprint for target in self.targets]) if self.targets else None,
            "config_sha256": runs.config_hash(self.record.config),
            "version": self.record.curate,
            "mode": output.mode,
            "rule": output.rule,
            "normalisation": output.normalisation,
            "weight_column": None if output.mode == "resampled" else output.weight_column,
            "columns": [[field.name, str(field.type)] for field in self.source.schema] + weight,
            "pool_sha256": self.source.fingerprint,
            "shards": len(self.shards),
            "stages": self.record.stages,
        }

    @property
    def stated(self) -> str:
        """The facts that every part of the dataset carries, as JSON."""
        return json.dumps({name: self.facts[name] for name in STATED}, sort_keys=True)

    def _tokens(
        self, table: pa.Table, section: SourceConfig, language_model: LanguageModel, place: Callable[[int], str]
    ) -> list[tokens.Tokens | None]:
        settings = self.model_config
        found = tokens.tokenize(table, section, language_model.tokenizer, max_tokens=settings.max_tokens)
        for row, entry in enumerate(found):
            if entry is not None and max(entry.ids) >= language_model.vocab:
                raise ModelError(
                    place(row),
                    f"token id {max(entry.ids)} from the tokenizer of {settings.tokenizer or settings.name}",
                    f"ids below the model's vocabulary of {language_model.vocab}",
                    "This tokenizer belongs to another model: name the right one as model.tokenizer.",
                )
        return found


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
        table = tables.read_arrow(self._job.verified("target", 0)[0])
        names = table["target"].to_pylist()
        whole = store.rows(table)
        return {name: torch.from_numpy(whole[[other == name for other in names]]) for name in dict.fromkeys(names)}

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


@lru_cache(maxsize=1)
def _language_model(root: Path, path: Path, _fingerprint: str) -> LanguageModel:
    job = open_job(str(root))
    job.verified("proxy", 0)
    return loading.load(path, config=job.model_config, seed=job.pipeline.seed, tokenizer=job.tokenizer_path)


@lru_cache(maxsize=1)
def _preconditioner(root: Path, _fingerprint: str) -> Preconditioner:
    """Adam's moments from the proxy's warm-up, laid out for its layers."""
    job = open_job(str(root))
    settings = job.model_config.warmup
    if settings is None:
        raise ModelError("model.warmup", "no such section", "a warm-up", "features.optimizer: adam needs its moments.")
    moments = warmup.load_optimizer(job.paths.optimizer.read_bytes())
    return make_preconditioner(job.language_model(), moments, beta1=settings.beta1, beta2=settings.beta2)


def _batch(places: list[int], found: list[tokens.Tokens | None]) -> Batch:
    members = [row for place in places if (row := found[place]) is not None]
    return collate(places, [row.ids for row in members], [row.loss for row in members])

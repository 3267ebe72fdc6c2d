"""The stored features of a run as a method reads them: one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from curate.features import store
from curate.manifest import commits
from curate.storage import tables
from curate.types import Features

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    pass

from curate.runs.job import Job
from curate.runs.tokens import reasons_of


def stored(job: Job, index: int) -> tuple[Features, list[str | None], np.ndarray | None]:
    """Features of a shard for the method, why rows are set aside, and token counts if there are any."""
    if not job.pipeline.reads_features:
        reasons = reasons_of(job, index)
        valid = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
        return Features(index, len(reasons), valid), reasons, None
    table = tables.read_arrow(job.verified("featurize", index)[0])
    counted = table["tokens"].to_numpy() if job.pipeline.features.needs_model else None
    return store.from_table(table, index), table["reason"].to_pylist(), counted


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
                yield stored(self._job, index)[0]

    def note(self, text: str) -> None:
        """Keep a line for the commit record, and say it now."""
        self.notes.append(text)
        self._job.events.write("note", stage="fit", text=text)

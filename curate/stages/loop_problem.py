"""A run as a training with a method in the loop sees it: batches by row, a proxy of its own, a state that outlives a kill."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from torch import Tensor

from curate.methods.batch import Tensors
from curate.models import loading, tensor_file
from curate.models.language_model import LanguageModel
from curate.models.losses import batch_token_losses, sample_losses
from curate.models.pair import in_float32
from curate.models.twin import Twin
from curate.runs import batches
from curate.runs.job import Job
from curate.runs.pool_rows import PoolRows
from curate.sources import long_rows
from curate.sources.tokens import Tokens
from curate.stages import proxy_states, weighting_models
from curate.storage import atomic
from curate.training.stream import Layout, Stream
from curate.types import Batch

BLOCK = 128
"""Rows that are sorted by length among themselves."""
KEEP_SECONDS = 120.0
"""Least time between two states that are kept."""
KEEP_SHARE = 0.05
"""Largest share of the time that goes into keeping them: a large model is kept more rarely."""
DIGEST = 32
"""Bytes of the hash that the state's file begins with."""


class StoredLoop:
    """Implements `training.loop.LoopProblem` over a run directory."""

    def __init__(self, job: Job, stage: str = "fit") -> None:
        self._job, self._stage, self._rows = job, stage, PoolRows(job, job.shards, stored=True)
        self.notes: list[str] = []
        self.models: dict[str, bytes] = {}
        """What rows are weighed by, as files by name: what is trained of proxy and reference, or of the proxy, and a weighting
        model."""
        self._keep_at, self._told_at = time.monotonic() + KEEP_SECONDS, time.monotonic()
        self._waiting = 0

    @property
    def length(self) -> int:
        """Number of rows of the pool."""
        return self._rows.rows

    @property
    def starts(self) -> np.ndarray:
        """First row of every shard."""
        return self._rows.starts[:-1]

    @property
    def language_model(self) -> LanguageModel:
        """The proxy, loaded for this training alone, what is trained of it in float32."""
        return self._proxy

    @cached_property
    def _proxy(self) -> LanguageModel:
        made = proxy_states.anew(self._job)
        in_float32(made)
        return made

    def pool(self, batch_tokens: int) -> Stream:
        """Batches of the pool."""
        return self._stream(batch_tokens, 2)

    def others(self, batch_tokens: int, *, alike: bool = True) -> Stream:
        """Batches of the pool in another order, of rows of like length or of all lengths."""
        return self._stream(batch_tokens, 7, alike=alike)

    def targets(self, batch_tokens: int) -> Sequence[Stream]:
        """Batches of each named target."""
        layout, first, streams = self._layout(batch_tokens), self.length, list[Stream]()
        for place, size in enumerate(self._rows.target_sizes):
            name = f"target {self._job.pipeline.targets[place].name}"
            seed = [self._job.pipeline.seed, 3, place]
            streams.append(Stream(np.arange(first, first + size), layout, seed=seed, name=name))
            first += size
        return streams

    def losses(self, batch: Batch) -> Tensor:
        """Mean token loss of every sample."""
        return sample_losses(self.language_model, batch)

    def token_losses(self, batch: Batch) -> Tensor:
        """Loss of every token."""
        return batch_token_losses(self.language_model, batch)

    def turn(self, turn: int, step: int, logits: Callable[[], Tensor]) -> None:
        """Nothing changes from pass to pass."""

    def kept(self) -> Tensors | None:
        """The state of this very training; whatever else lies there is of another and is not looked at."""
        path = self._job.paths.loop
        data = path.read_bytes() if path.exists() else b""
        digest, payload = data[:DIGEST], data[DIGEST:]
        if not data or digest != self._digest(payload):
            return None
        self._job.events.write("note", stage=self._stage, text="continuing the training from where it was interrupted")
        return tensor_file.tensors(payload)

    def keep(self, state: Callable[[], Tensors]) -> None:
        """Keep the state now and then."""
        began = time.monotonic()
        if began < self._keep_at:
            return
        payload = tensor_file.plain(state())
        atomic.write_bytes(self._job.paths.loop, self._digest(payload) + payload)
        ended = time.monotonic()
        self._keep_at = ended + max(KEEP_SECONDS, (ended - began) / KEEP_SHARE)

    def keep_pair(self, reference: Twin) -> None:
        """Both models as files."""
        self.models["proxy"] = loading.trained(self.language_model)
        with reference.active():
            self.models["reference"] = loading.trained(self.language_model)

    def keep_weigher(self, weigher: Tensors) -> None:
        """The proxy and the weighting model as files."""
        self.models["proxy"] = loading.trained(self.language_model)
        self.models["weigher"] = weighting_models.encoded(weigher, self.language_model)

    def stored_weigher(self) -> Tensors | None:
        """The weighting model of another run that the method names, if it names one. Raises ConfigError, ModelError."""
        return weighting_models.stored(self._job, self.language_model)

    def note(self, text: str) -> None:
        """Keep a line for the commit record, and say it now."""
        self.notes.append(text)
        self._job.events.write("note", stage=self._stage, text=text)

    def advance(self, rows: int) -> None:
        """Say about once a second how many rows were trained on."""
        self._waiting += rows
        if self._waiting and time.monotonic() - self._told_at > 1:
            self._job.events.write("progress", stage=self._stage, done=self._waiting)
            self._waiting, self._told_at = 0, time.monotonic()

    def _digest(self, payload: bytes) -> bytes:
        """Names training and bytes: a state of other settings, or with a flipped bit, has another."""
        return hashlib.sha256(self._job.record.stages[self._stage].encode() + payload).digest()

    def _stream(self, batch_tokens: int, order: int, *, alike: bool = True) -> Stream:
        """Batches of the pool; a number for each order."""
        seed = [self._job.pipeline.seed, order]
        return Stream(np.arange(self.length), self._layout(batch_tokens, alike=alike), seed=seed, name="pool")

    def _layout(self, batch_tokens: int, *, alike: bool = True) -> Layout:
        def layout(drawn: Sequence[int], generator: np.random.Generator) -> Iterator[Batch]:
            read = zip(drawn, self._rows.tokens(np.array(drawn), self.language_model), strict=True)
            limit = self._job.model_config.max_tokens
            usable = [(row, long_rows.drawn(found, limit, generator)) for row, found in read if found is not None]
            for start in range(0, len(usable), BLOCK):
                block = usable[start : start + BLOCK]
                yield from self._batches(block, batch_tokens, generator) if alike else self._drawn(block, batch_tokens)

        return layout

    def _batches(
        self, block: list[tuple[int, Tokens]], batch_tokens: int, generator: np.random.Generator
    ) -> Iterator[Batch]:
        """Rows of a block in batches of like length."""
        packs, rows = self.language_model.packs, [found for _, found in block]
        return _numbered(block, batches.mixed(rows, batch_tokens, packs=packs, generator=generator))

    def _drawn(self, block: list[tuple[int, Tokens]], batch_tokens: int) -> Iterator[Batch]:
        """Rows of a block in batches of all lengths, as they come."""
        rows = [found for _, found in block]
        return _numbered(block, batches.drawn(rows, batch_tokens, packs=self.language_model.packs))


def _numbered(block: list[tuple[int, Tokens]], batches: Iterator[Batch]) -> Iterator[Batch]:
    """Batches of places in a block, by the numbers of its rows."""
    return (replace(batch, rows=tuple(block[row][0] for row in batch.rows)) for batch in batches)

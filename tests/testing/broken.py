"""A method, an export and a format that are as they should be, and others that are wrong in one way each."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from curate import exports, methods, sources
from curate.errors import DataError
from curate.methods import Batch, Features, Measures, Problem, State, StepLoop, StepLoopConfig
from curate.methods.less import Less, LessConfig
from curate.methods.max_loss import MaxLoss, MaxLossConfig

CLASSES: dict[str, Any] = {}


@dataclass(frozen=True)
class Method(methods.Entry):
    """A line whose class is in this module."""

    def method(self) -> Any:
        return CLASSES[self.module]


@dataclass(frozen=True)
class Export(exports.Entry):
    """The same of an export."""

    def exporter(self) -> Any:
        return CLASSES[self.module]


@dataclass(frozen=True)
class Format(sources.Entry):
    """The same of a format."""

    def format(self) -> Any:
        return CLASSES[self.module]()


def of_pool(cls: Any) -> Method:
    CLASSES[cls.__name__] = cls
    return Method("mine", cls.__name__, features="gradients", paper="-", summary="-", costs="-", choose="-")


def of_batches(cls: Any) -> Method:
    return replace(of_pool(cls), features="", loop=True)


def of_exports(cls: Any) -> Export:
    CLASSES[cls.__name__] = cls
    return Export("mine", cls.__name__, "lines", "all of it", "nothing")


def of_formats(cls: Any) -> Format:
    CLASSES[cls.__name__] = cls
    return Format("mine", cls.__name__, (".rows",), "a JSON object with the columns")


# Methods of the pool


class MineConfig(LessConfig):
    """Settings."""

    name: Literal["mine"] = "mine"  # pyright: ignore[reportIncompatibleVariableOverride]


class Good(Less):
    Config: ClassVar = MineConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def weigh(self, state: State, features: Features) -> Tensor:
        return self.wrong(super().weigh(state, features))

    def wrong(self, weights: Tensor) -> Tensor:
        return weights


class TooFew(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return weights[:-1]


class NotFinite(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return torch.cat([torch.tensor([torch.nan]), weights[1:]])


class Negative(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return weights - 1.0


class MeanTwo(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return weights * 2


class Single(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return weights.float()


class Random(Good):
    def wrong(self, weights: Tensor) -> Tensor:
        return torch.rand(len(weights), dtype=torch.float64) * 2


class InOrder(Good):
    """Weighs a shard by how many were weighed before it."""

    def __init__(self, config: MineConfig) -> None:
        super().__init__(config)
        self.seen = 0

    def wrong(self, weights: Tensor) -> Tensor:
        self.seen += 1
        return weights * (1 + 0.01 * (self.seen % 5))


class Forgetful(Good):
    """Keeps what it learned in itself and not in the state."""

    def fit(self, problem: Problem) -> State:
        self.kept = super().fit(problem)
        return {"nothing": np.zeros(1)}

    def weigh(self, state: State, features: Features) -> Tensor:
        return super().weigh(self.kept, features)


class Objects(Good):
    """A state that no file holds."""

    def fit(self, problem: Problem) -> State:
        return {**super().fit(problem), "config": np.array([self.config], dtype=object)}


POOL = {
    cls: of_pool(cls)
    for cls in (Good, TooFew, NotFinite, Negative, MeanTwo, Single, Random, InOrder, Forgetful, Objects)
}


# Methods with the model in the loop


class StepConfig(MaxLossConfig):
    """Settings."""

    name: Literal["mine"] = "mine"  # pyright: ignore[reportIncompatibleVariableOverride]
    loop: StepLoopConfig = StepLoopConfig(start=3)  # pyright: ignore[reportIncompatibleVariableOverride]


class GoodStep(MaxLoss):
    Config: ClassVar = StepConfig  # pyright: ignore[reportIncompatibleVariableOverride]
    Loop: ClassVar[type[StepLoop]] = StepLoop

    def batch_weigher(self, rows: int) -> StepLoop:
        return self.Loop(self.config.loop, rows, self.choose, gram=self.gram)


class ForgetfulLoop(StepLoop):
    def state(self) -> dict[str, Tensor]:
        return {**super().state(), "visits": torch.zeros_like(self._visits)}


class NumbersLoop(StepLoop):
    def state(self) -> Any:
        return {**super().state(), "rows": len(self._sums)}


class TwiceLoop(StepLoop):
    def update(self) -> None:
        super().update()
        self._sums[0] += 1.0


class DrawnLoop(StepLoop):
    def terms(self, batch: Batch, fraction: float) -> Iterator[Tensor]:
        for term in super().terms(batch, fraction):
            yield term * torch.rand(())


class UnequalLoop(StepLoop):
    def logits(self) -> Tensor:
        return super().logits() + torch.arange(len(self._sums))


class ForgetfulStep(GoodStep):
    Loop = ForgetfulLoop


class NumbersStep(GoodStep):
    Loop = NumbersLoop


class TwiceStep(GoodStep):
    Loop = TwiceLoop


class DrawnStep(GoodStep):
    Loop = DrawnLoop


class UnequalStep(GoodStep):
    Loop = UnequalLoop


def by_number(found: Measures) -> Tensor:
    return torch.ones(len(found.losses), dtype=torch.float64)


BATCH = {cls: of_batches(cls) for cls in (GoodStep, ForgetfulStep, NumbersStep, TwiceStep, DrawnStep, UnequalStep)}


# Exports


class Lines(exports.PartsOnly):
    """A line a row."""

    def part(self, rows: exports.Rows, folder: Path) -> exports.Made:
        found = self.wrong([{"row": str(row)} for row in rows.table.to_pylist()])
        path = folder / f"{rows.index}.jsonl"
        return exports.Made((exports.write_lines(path, found),), len(found))

    def wrong(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return rows


class Dropping(Lines):
    def wrong(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return rows[:-2]


class Lying(Dropping):
    """Drops rows and does not say so."""

    def part(self, rows: exports.Rows, folder: Path) -> exports.Made:
        return replace(super().part(rows, folder), rows=len(rows.table))


class Drawing(Lines):
    def wrong(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "id": secrets.token_hex(4)} for row in rows]


class Placed(Lines):
    """Says where it lies."""

    def close(self, made: Sequence[exports.Made], folder: Path) -> list[exports.Part]:
        return [exports.text_file(folder / "index.txt", str(folder))]


class Remembering(Lines):
    """Counts in itself what `close` writes."""

    def __init__(self, whole: exports.Whole) -> None:
        super().__init__(whole)
        self.count = 0

    def part(self, rows: exports.Rows, folder: Path) -> exports.Made:
        self.count += len(rows.table)
        return super().part(rows, folder)

    def close(self, made: Sequence[exports.Made], folder: Path) -> list[exports.Part]:
        return [exports.text_file(folder / "count.txt", str(self.count))]


EXPORTS = {cls: of_exports(cls) for cls in (Lines, Dropping, Lying, Drawing, Placed, Remembering)}


# Formats


class Rows:
    """A JSON object with a list a column."""

    def inspect(self, path: str, shard_rows: int, limits: Any) -> sources.Inspected:
        table = self.load(path)
        return sources.Inspected(table.schema, len(table))

    def read(self, shard: sources.Shard, schema: pa.Schema, limits: Any) -> pa.Table:
        return self.load(shard.file.path).select(schema.names).slice(shard.start, shard.rows)

    def load(self, path: str) -> pa.Table:
        with sources.open_input(path) as stream:
            try:
                found = json.loads(stream.read())
                return pa.table({"id": pa.array(found["id"], pa.int64()), "text": pa.array(found["text"], pa.string())})
            except (ValueError, KeyError) as error:
                raise DataError(path, str(error), "rows", "Restore it.") from error


class WithoutTheLast(Rows):
    def inspect(self, path: str, shard_rows: int, limits: Any) -> sources.Inspected:
        found = super().inspect(path, shard_rows, limits)
        return replace(found, rows=max(0, found.rows - 1))


class FromTheStart(Rows):
    """Ignores where a shard begins."""

    def read(self, shard: sources.Shard, schema: pa.Schema, limits: Any) -> pa.Table:
        return super().read(replace(shard, start=0), schema, limits)


class AllColumns(Rows):
    def read(self, shard: sources.Shard, schema: pa.Schema, limits: Any) -> pa.Table:
        return self.load(shard.file.path).slice(shard.start, shard.rows)


class LocalOnly(Rows):
    def load(self, path: str) -> pa.Table:
        return super().load(str(Path(path).resolve(strict=True)))


class Credulous(Rows):
    def load(self, path: str) -> pa.Table:
        try:
            return super().load(path)
        except (DataError, ValueError):
            return pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())})


FORMATS = {cls: of_formats(cls) for cls in (Rows, WithoutTheLast, FromTheStart, AllColumns, LocalOnly, Credulous)}


def write_rows(_: Any, path: Path, table: pa.Table) -> None:
    path.write_text(json.dumps(table.to_pydict()))

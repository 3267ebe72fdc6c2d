"""`curate check-trainer`: a tiny export is given to the installed trainer twice, with one weight moved from one row to another.

It runs in the Python that has the trainer, and needs little of curate's own libraries: many trainers need older ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from curate.errors import ModelError
from curate.exports.base import Layout, Rows, Tokenizer, Whole, weights_of
from curate.exports.registry import EXPORTERS
from curate.models import tiny
from curate.sinks.selection import ShardWeights
from curate.storage import tables
from curate.trainers.comparison import Observed, Verdict, gradient, judge, tokens_with_loss
from curate.trainers.probes.registry import Entry, find

FACTORS = (1.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
DRAWS = (3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Weights of the eight rows, as factors of losses, and as how often a row comes. Then the first two are exchanged."""


@dataclass(frozen=True)
class Checked:
    """What was found of one trainer.

    Attributes:
        name: of the probe.
        trainer: package and version.
        verdict: what became of the weights.
    """

    name: str
    trainer: str
    verdict: Verdict

    def lines(self) -> list[str]:
        """The verdict in words."""
        verdict, (least, most) = self.verdict, self.verdict.moved
        between = f"{least:.4f}" if most - least < 5e-5 else f"{least:.4f} to {most:.4f}"
        said = {
            "honoured": "the gradient changed in proportion to the weights",
            "ignored": "the gradient did not change: the trainer does not see the weights",
            "distorted": "the gradient changed, but not in proportion to the weights",
        }
        return [
            f"{self.name}: weights {verdict.kind}, {self.trainer}",
            said[verdict.kind],
            f"{between} of the expected change; {100 * verdict.astray:.2f} % in other directions",
        ]


def check(name: str) -> Checked:
    """Take two steps with a trainer under some weights, then under others, and compare with a plain loop.

    Args:
        name: of a probe; `trainers/probes/registry.py` has them.

    Raises:
        ConfigError: no such probe, or the trainer is not installed in this Python.
        ModelError: the trainer took no steps, or others than two.
    """
    entry = find(name)
    probe = entry.probe()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched, whatever the trainer looks for
    weights = DRAWS if entry.draws else FACTORS
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        model = tiny.write(root / "model")
        seen = []
        for number, own in enumerate((weights, (weights[1], weights[0], *weights[2:]))):
            scratch = root / str(number)
            folder = _exported(entry, own, scratch / "export")
            seen.append(probe(folder, model, scratch))
            _check_steps(entry, seen[-1])
        expected = _expected(model, seen[0], weights[1] - weights[0])
    return Checked(name, f"{entry.package} {version(entry.package)}", judge(seen[0].steps, seen[1].steps, expected))


def _exported(entry: Entry, weights: Sequence[float], folder: Path) -> Path:
    """Eight rows of different lengths in the format of the trainer, by the exporter of `curate export`."""
    table = pa.table(
        {
            "prompt": [f"{row} and {row * row % 7} make" for row in range(len(weights))],
            "completion": [" so much" * (1 + row * 5 % 7) + "." for row in range(len(weights))],
            "weight": pa.array(weights, pa.float32()),
        }
    )
    layout = Layout({"prompt": "prompt", "completion": "completion"}, "weight")
    path = folder.parent / "dataset" / "train.parquet"
    tables.write_parquet(path, table, metadata={})
    exporter = EXPORTERS[entry.export].exporter()(
        Whole(layout, lambda: [ShardWeights(weights_of(table, layout))], _no_tokenizer)
    )
    exporter.close([exporter.part(Rows(0, 1, path, table), folder)], folder)
    return folder


def _no_tokenizer() -> Tokenizer:
    raise ModelError("check-trainer", "an export of tokens", "one of text", "Check another trainer.")


def _expected(model: Path, seen: Observed, moved: float) -> Tensor:
    """How the gradient of a step over all rows moves when the first row gains what the second one loses."""
    network = tiny.load(model)[0]
    return gradient(network, seen.rows, {0: moved, 1: -moved}, tokens_with_loss(seen.rows))


def _check_steps(entry: Entry, seen: Observed) -> None:
    if len(seen.steps) != 2 or len(seen.rows) != len(FACTORS):
        found = f"{len(seen.steps)} steps over {len(seen.rows)} rows"
        fix = f"This version of {entry.package} may need another probe: report it."
        raise ModelError(f"check-trainer {entry.name}", found, f"2 steps over {len(FACTORS)} rows", fix)

"""LLaMA-Factory v1: `loss_weight` in every message, and the dataset_info.yaml that names the files.

v1 divides a micro-batch's loss by the sum of its weights: they count among the rows of one micro-batch only, and not at all where
it holds a single row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.conversations.normalise import texts
from curate.exports.base import Made, text_file
from curate.exports.chat import Chat
from curate.storage.atomic import Part

INFO = """\
# train_dataset: dataset_info.yaml (in this directory), with a micro_batch_size of several rows
curate:
  path: data
  source: local
"""


class LlamaFactory(Chat):
    """`{"messages": [{"role": ..., "content": [{"type": "text", "value": ...}], "loss_weight": 0.83}]}`."""

    NAME = "llamafactory"

    def turn(self, turn: dict[str, Any], weight: float) -> dict[str, Any]:
        """The turn in v1's own format; the loss is computed on the assistant's only."""
        content = [{"type": "text", "value": "".join(texts(turn.get("content")))}]
        return {"role": turn["role"], "content": content, "loss_weight": weight * (turn["role"] == "assistant")}

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Name the directory of the files."""
        return [text_file(folder / "dataset_info.yaml", INFO)]


EXPORTER = LlamaFactory

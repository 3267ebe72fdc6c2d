"""Axolotl: it knows no weights of rows, so rows come as often as they weigh; chosen tokens come as labels that mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from curate.exports.base import Made, PartsOnly, Rows, chats, chosen, parquet_name, text_file, turns
from curate.exports.conversational import conversational
from curate.exports.trl import masked, plain
from curate.storage import tables
from curate.storage.atomic import Part

DATASETS = """\
# a part of an Axolotl file; paths are as seen from this directory
datasets:
  - path: data
    ds_type: parquet
    split: train
{kind}"""
KINDS = {
    "text": "    type: completion\n    field: text\n",
    "messages": "    type: chat_template\n    field_messages: messages\n",
    "tokens": "",  # no type: the columns are input_ids, attention_mask and labels
}


class Axolotl(PartsOnly):
    """Resampled rows, or tokenised ones with a mask."""

    @property
    def _kind(self) -> str:
        if self.whole.layout.token_weight is not None:
            return "tokens"
        return "text" if "text" in self.whole.layout.fields else "messages"

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one file."""
        made = plain(self._tokens(rows) if self._kind == "tokens" else self._repeated(rows))
        return Made((tables.write_parquet(folder / parquet_name(rows), made, metadata={}),), len(made))

    def _tokens(self, rows: Rows) -> pa.Table:
        found = masked(rows, self.whole).select(["input_ids", "labels"])
        seen = [[1] * len(ids) for ids in found["input_ids"].to_pylist()]
        return found.append_column("attention_mask", pa.array(seen, pa.list_(pa.int64())))

    def _repeated(self, rows: Rows) -> pa.Table:
        often = np.repeat(np.arange(len(rows.table)), self.whole.copies(rows))
        table = chosen(rows.table, self.whole.layout).take(pa.array(often))
        if self._kind == "text":
            return table
        if chats(table):
            return conversational(table, self.whole)
        turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
        return pa.table({"messages": pa.array([turns(row) for row in table.to_pylist()], turn)})

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """Say of what type the rows are."""
        return [text_file(folder / "axolotl.yaml", DATASETS.format(kind=KINDS[self._kind]))]


EXPORTER = Axolotl

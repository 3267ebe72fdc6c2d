"""TRL: text, prompt and completion or messages with a weight; for weights of tokens, ids with labels that mask.

SFTTrainer drops every column it does not know, the weight with them (TRL 1.16, `_signature_columns`); the labels of a
tokenised dataset it takes as they are, whatever `completion_only_loss` says.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from curate.exports.base import TOKEN_WEIGHT, Made, PartsOnly, Rows, Whole, chats, chosen, parquet_name, with_weight
from curate.exports.conversational import conversational
from curate.storage import tables


class Trl(PartsOnly):
    """Parquet that SFTTrainer prepares, or has no need to."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one file."""
        made = self._rows(rows) if self.whole.layout.token_weight is None else masked(rows, self.whole)
        return Made((tables.write_parquet(folder / parquet_name(rows), made, metadata={}),), len(made))

    def _rows(self, rows: Rows) -> pa.Table:
        layout = self.whole.layout
        table = chosen(rows.table, layout)
        made = conversational(table, self.whole) if chats(table) else table
        return plain(with_weight(made, self.whole.weights(rows), layout))


def masked(rows: Rows, whole: Whole) -> pa.Table:
    """Rows with tokens: input_ids, labels with -100 where a token was not chosen, and token_weight as the method gave it."""
    found = [row for row in whole.tokens(rows) if any(label >= 0 for label in row.labels)]
    return pa.table(
        {
            "input_ids": pa.array([row.ids for row in found], pa.list_(pa.int64())),
            "labels": pa.array([row.labels for row in found], pa.list_(pa.int64())),
            TOKEN_WEIGHT: pa.array([row.weights for row in found], pa.list_(pa.float32())),
        }
    )


def plain(table: pa.Table) -> pa.Table:
    """Without metadata, which speaks of columns that are not there any more."""
    return table.replace_schema_metadata(None)


EXPORTER = Trl

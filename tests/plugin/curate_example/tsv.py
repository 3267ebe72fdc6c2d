"""Tab-separated values: a weight and a text a line."""

from __future__ import annotations

import json
from pathlib import Path

from curate.exports import Made, PartsOnly, Rows, write_bytes


class Tsv(PartsOnly):
    """The weight with six digits, and the columns of the text as one JSON object, which has no tab."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write one file."""
        fields, weights = self.whole.layout.fields, self.whole.weights(rows).tolist()
        texts = [{key: row[column] for key, column in fields.items()} for row in rows.table.to_pylist()]
        lines = [f"{weight:.6g}\t{json.dumps(text)}\n" for weight, text in zip(weights, texts, strict=True)]
        return Made((write_bytes(folder / f"part-{rows.index:05d}.tsv", "".join(lines).encode()),), len(lines))


EXPORTER = Tsv

"""A dataset of several configurations, one a bucket of weights, and the probabilities to interleave them with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from curate.exports import buckets
from curate.exports.base import Made, PartsOnly, Rows, text_file
from curate.storage import tables
from curate.storage.atomic import Part

CARD = """\
---
configs:
{configs}
---

Rows of about the same weight are one configuration each. `sampling.json` has the probabilities:

```python
import json
from datasets import interleave_datasets, load_dataset

found = json.load(open("sampling.json"))
streams = [load_dataset(".", name, split="train", streaming=True).shuffle(seed=0) for name in found["configs"]]
mixed = interleave_datasets([stream.repeat(None) for stream in streams], probabilities=found["probabilities"], seed=0)
```
"""
CONFIG = "- config_name: {name}\n  data_files: data/{name}/*.parquet"


class Sampler(PartsOnly):
    """Parquet by bucket: a row is drawn as often as it weighs, within a tenth."""

    def part(self, rows: Rows, folder: Path) -> Made:
        """Write a file for every bucket that the part has rows of."""
        weights, parts, facts = self.whole.weights(rows), [], {}
        for name, places in buckets.split(weights):
            table = rows.table.take(pa.array(places))
            parts.append(
                tables.write_parquet(folder / f"data/{name}/part-{rows.index:05d}.parquet", table, metadata={})
            )
            facts[name] = buckets.facts(weights, places)
        return Made(tuple(parts), sum(int(found[0]) for found in facts.values()), facts)

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """The configurations and their probabilities."""
        found = buckets.gathered(made)
        whole = sum(bucket.total for bucket in found)
        sampling = {
            "configs": [bucket.name for bucket in found],
            "probabilities": [bucket.total / whole for bucket in found],
            "rows": [bucket.rows for bucket in found],
            "mean_weights": [bucket.mean for bucket in found],
        }
        configs = "\n".join(CONFIG.format(name=bucket.name) for bucket in found)
        return [
            text_file(folder / "sampling.json", json.dumps(sampling, indent=1) + "\n"),
            text_file(folder / "README.md", CARD.format(configs=configs)),
        ]


EXPORTER = Sampler

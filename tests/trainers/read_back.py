"""Run by the Python that has a trainer: reads an export with the trainer's own code and prints what it found as JSON.

`python read_back.py mosaic|megatron FOLDER SCRATCH`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def mosaic(folder: Path, scratch: Path) -> dict[str, Any]:
    """Every stream's rows, how often an epoch over all has each, and the same rows as the library writes them."""
    import yaml
    from streaming import MDSWriter, Stream, StreamingDataset

    named = yaml.safe_load((folder / "streams.yaml").read_text())["streams"]
    rows, same = {}, {}
    for name, each in named.items():
        alone = StreamingDataset(local=str(folder / each["local"]), batch_size=1, shuffle=False, num_canonical_nodes=1)
        rows[name] = [row["text"] for row in alone]
        found = [alone[place] for place in range(len(alone))]
        shards = json.loads((folder / each["local"] / "index.json").read_text())["shards"]
        columns = dict(zip(shards[0]["column_names"], shards[0]["column_encodings"], strict=True))
        same[name], start = [], 0
        for number, shard in enumerate(shards):
            out = scratch / name / str(number)
            with MDSWriter(out=str(out), columns=columns, size_limit=None) as writer:
                for row in found[start : start + shard["samples"]]:
                    writer.write(row)
            start += shard["samples"]
            ours = (folder / each["local"] / shard["raw_data"]["basename"]).read_bytes()
            theirs = json.loads((out / "index.json").read_text())["shards"][0]
            stated = {**shard, "raw_data": {**shard["raw_data"], "basename": theirs["raw_data"]["basename"]}}
            same[name] += [(out / theirs["raw_data"]["basename"]).read_bytes() == ours, stated == theirs]
    streams = [Stream(local=str(folder / each["local"]), repeat=each["repeat"]) for each in named.values()]
    epoch = StreamingDataset(streams=streams, batch_size=1, shuffle=True, num_canonical_nodes=1)
    return {"rows": rows, "same": same, "epoch": [row["text"] for row in epoch]}


def megatron(folder: Path, scratch: Path) -> dict[str, Any]:
    """Every bucket's documents, and whether the library's own builder writes the same bytes."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    blend = (folder / "blend.txt").read_text().split()
    rows, same = {}, {}
    for name in blend[1::2]:
        data = IndexedDataset(str(folder / name))
        rows[name] = [data[place].tolist() for place in range(len(data))]
        builder = IndexedDatasetBuilder(str(scratch / f"{name}.bin"), dtype=np.uint16)
        for document in rows[name]:
            builder.add_document(torch.tensor(document), [len(document)])
        builder.finalize(str(scratch / f"{name}.idx"))
        files = [f"{name}.bin", f"{name}.idx"]
        same[name] = [(folder / file).read_bytes() == (scratch / file).read_bytes() for file in files]
    return {"rows": rows, "same": same, "shares": [float(share) for share in blend[::2]]}


if __name__ == "__main__":
    print(
        "\n" + json.dumps({"mosaic": mosaic, "megatron": megatron}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3])))
    )

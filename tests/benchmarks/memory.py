"""Peak memory of every stage on a pool and on one ten times as large: `python tests/benchmarks/memory.py`.

Each stage runs all its tasks in a process of its own, so its peak is its own. Writes results/memory.json.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from curate import config
from curate.engine import inputs
from curate.engine.tasks import PER_SHARD
from curate.reports.progress import Silent
from curate.results import outcome
from curate.stages import work
from curate.storage.paths import RunPaths

HERE = Path(__file__).parent
SAMPLE = HERE.parents[1] / "data" / "sample"
MODEL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 64}
MODEL |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128}
MODEL |= {"vocab_size": 4096, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


def make_pool(path: Path, rows: int) -> None:
    """Rows of 30 random words of the sample pool, in one file with one row group in 10,000 rows."""
    words = pq.read_table(SAMPLE / "pool" / "pool-0.parquet")["text"].to_pylist()
    words = " ".join(words).split()
    rng = Random(rows)
    texts = [" ".join(rng.choices(words, k=30)) for _ in range(rows)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10_000)


def make_model(path: Path) -> None:
    """The sample's tokenizer with a tiny model's config."""
    path.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (path / name).write_bytes((SAMPLE / "proxy" / name).read_bytes())
    (path / "config.json").write_text(json.dumps(MODEL))


def pipeline_of(folder: Path) -> config.Pipeline:
    model = {"name": str(folder / "model"), "from_scratch": True, "max_tokens": 64, "warmup": {"tokens": 20_000}}
    return config.validate(
        {
            "pool": {"path": str(folder / "pool.parquet"), "shard_rows": 500},
            "target": {"path": str(SAMPLE / "target.parquet")},
            "model": model,
            "features": {"projection": {"dim": 1024}},
            "method": {"name": "bds"},
            "output": {"mode": "filtered", "keep": 0.3},
        }
    )


def one_stage(run_dir: str, stage: str) -> None:
    """Run a stage in this process and print its peak in bytes."""
    if stage == "report":
        outcome.write_report(Path(run_dir))
    else:
        job = work.open_job(run_dir)
        for index in range(len(job.shards)) if stage in PER_SHARD else [0]:
            work.perform(run_dir, stage, index)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin at the peak of the parent process
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024)  # pyright: ignore[reportOptionalSubscript]


def measure(folder: Path, rows: int) -> dict[str, int]:
    """Peak bytes of each stage for a pool of `rows`."""
    folder.mkdir()
    make_model(folder / "model")
    make_pool(folder / "pool.parquet", rows)
    run_dir = folder / "run"
    run_dir.mkdir()
    record = inputs.begin(RunPaths(run_dir), pipeline_of(folder), Silent())
    peaks = {}
    for stage in (*record.stages, "report"):
        done = subprocess.run(
            [sys.executable, __file__, str(run_dir), stage], check=True, capture_output=True, text=True
        )
        peaks[stage] = int(done.stdout.split()[-1])
    return peaks


def main(small: int = 3_000) -> None:
    with tempfile.TemporaryDirectory() as place:
        few, many = (measure(Path(place) / str(rows), rows) for rows in (small, 10 * small))
    stages_of = [
        {"stage": stage, "mib": round(few[stage] / 2**20, 1), "mib_10x": round(many[stage] / 2**20, 1)} for stage in few
    ]
    for line in stages_of:
        line["ratio"] = round(line["mib_10x"] / line["mib"], 3)
        print(f"{line['stage']:10} {line['mib']:8.1f} MiB  {line['mib_10x']:8.1f} MiB  x{line['ratio']:.3f}")
    result = {"rows": [small, 10 * small], "machine": platform.machine(), "stages": stages_of}
    result["date"] = datetime.now(UTC).date().isoformat()
    (HERE / "results" / "memory.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one_stage(sys.argv[1], sys.argv[2])
    else:
        main()

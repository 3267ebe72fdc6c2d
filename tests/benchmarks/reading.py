"""CPU time of reading conversations, against `apply_chat_template` alone; and what it saves to tokenise once a run.

`python -m tests.benchmarks.reading`, alone on the machine; writes results/reading.json.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from curate import config
from curate.conversations import Renderer, token_masks
from curate.engine import flow
from curate.models import loading, tiny
from curate.runs import pool_rows, tokens
from curate.runs.job import Job, open_job
from curate.runs.pool_rows import PoolRows
from curate.runs.texts import target_tables
from curate.stages import loop_problem
from tests.conversations import battery

RESULT = Path(__file__).parent / "results" / "reading.json"
WORDS = ["the", "quick", "brown", "fox", "user", "assistant", "answer", "name", "system", "think"]
TEMPLATES = ("qwen3", "qwen3_8", "llama3_1", "gptoss_training", "gemma3")
ROWS, ROUNDS = 400, 7
RUN_ROWS, RUN_ROUNDS = 400, 3


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length))


def chat(rng: random.Random, _: int) -> list[dict[str, Any]]:
    turns = [(battery.user(sentence(rng, 30)), battery.assistant(sentence(rng, 80))) for _ in range(2)]
    return [turn for pair in turns for turn in pair]


def calling(rng: random.Random, row: int) -> list[dict[str, Any]]:
    called = battery.call("f", {"x": sentence(rng, 5), "n": row % 3}, row)
    answer = battery.assistant(sentence(rng, 60))
    return [
        battery.user(sentence(rng, 30)), battery.assistant("", tool_calls=[called]), battery.result("ok", "f", row), answer,
    ]  # fmt: skip


def seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def ratio(template: str, rows: list[Any], tools: Any) -> list[float]:
    """Ours over theirs, a number a round, one after the other."""
    tokenizer = battery.tokenizer()
    tokenizer.chat_template = battery.trl_templates()[template]

    def theirs() -> None:
        for row in rows:
            tokenizer.apply_chat_template(row, tools=tools, tokenize=True, return_dict=True)

    def ours() -> None:
        renderer, masks = Renderer(tokenizer), token_masks(tokenizer)
        found = [renderer(row, tools) for row in rows]
        masks([each.text for each in found], [each.spans for each in found])

    theirs(), ours()
    return [seconds(ours) / seconds(theirs) for _ in range(ROUNDS)]


def saving() -> dict[str, float]:
    """Seconds of reading all rows of a pool once: tokenised anew, as every stage and pass did, and as they were stored."""
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), random.Random(0)
        model = tiny.write(root / "model")
        rows = [{"messages": chat(rng, row)} for row in range(2000)]
        for name, part in (("pool", rows), ("target", rows[:8])):
            (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        content = {
            "pool": {"path": str(root / "pool.jsonl"), "shard_rows": 250},
            "target": {"path": str(root / "target.jsonl")},
            "model": {"name": str(model), "max_tokens": 512},
            "features": {"name": "losses"},
            "method": {"name": "perplexity"},
            "cluster": {"workers": 0},
        }
        job = open_job(str(flow.run(config.validate(content), root / "run")))
        language_model = loading.load(job.model_path, config=job.model_config, seed=0, tokenizer=job.tokenizer_path)
        every = np.arange(len(rows))
        taken = {
            name: statistics.median(
                seconds(lambda stored=stored: PoolRows(job, job.shards, stored=stored).tokens(every, language_model))
                for _ in range(ROUNDS)
            )
            for name, stored in (("anew", False), ("stored", True))
        }
        tokens = sum(
            len(row.ids) for row in PoolRows(job, job.shards, stored=True).tokens(every, language_model) if row
        )
        return {"rows": len(rows), "tokens": tokens, **taken}


def whole_runs() -> list[dict[str, Any]]:
    """CPU seconds of whole runs that train on the pool: with stored tokens, and tokenised anew for every stage and batch.

    A worker keeps the tokens of some rows (`pool_rows.KEPT`). With more rows than those it reads them again in every pass: so
    do runs that keep none.
    """
    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), random.Random(0)
        model = tiny.write(root / "model")
        rows = [{"messages": chat(rng, row)} for row in range(RUN_ROWS)]
        for name, part in (("pool", rows), ("target", rows[:32])):
            (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        content = {
            "pool": {"path": str(root / "pool.jsonl"), "shard_rows": 100},
            "target": {"path": str(root / "target.jsonl")},
            "model": {"name": str(model), "max_tokens": 512},
            "cluster": {"workers": 0},
        }
        lines = []
        for method, kept in ((method, kept) for method in ("blade", "bds") for kept in (pool_rows.KEPT, 0)):
            pipeline = config.validate({**content, "method": {"name": method, "loop": {}}})
            taken: dict[str, list[float]] = {"anew": [], "stored": []}
            for turn in range(RUN_ROUNDS):
                for way, found in taken.items():
                    run = root / f"{method}-{kept}-{way}-{turn}"
                    with _reading(way == "anew", kept):
                        found.append(seconds(lambda run=run, pipeline=pipeline: flow.run(pipeline, run)))
            lines.append({"method": method, "rows": RUN_ROWS, "kept": kept > 0, **taken})
        return lines


@contextmanager
def _reading(anew: bool, kept: int) -> Iterator[None]:
    """Runs that tokenise rows whenever they are read, if `anew`; workers keep the tokens of so many rows."""
    with ExitStack() as changes:
        changes.enter_context(mock.patch.object(pool_rows, "KEPT", kept))
        if anew:
            rows = partial(PoolRows, stored=False)
            changes.enter_context(mock.patch.object(loop_problem, "PoolRows", lambda *given, stored: rows(*given)))
            changes.enter_context(mock.patch.object(tokens, "_opened", _tokenised))
        yield


def _tokenised(job: Job, stage: str, index: int) -> tokens.StoredTokens:
    """Rows of a shard or of a target, tokenised now."""
    section = job.pipeline.pool if stage == tokens.STAGE else target_tables(job)[index][1]
    table = job.read(index) if stage == tokens.STAGE else target_tables(job)[index][0]
    return tokens.StoredTokens(tokens.to_table(tokens.made(job, table, section)))


def main() -> None:
    rng = random.Random(0)
    lines = []
    for name, make, tools in (("plain chats", chat, None), ("calls of tools", calling, battery.TOOLS)):
        rows = [make(rng, row) for row in range(ROWS)]
        for template in TEMPLATES:
            if tools is None or template != "gemma3":
                found = ratio(template, rows, tools)
                lines.append(
                    {
                        "rows": name,
                        "template": template,
                        "ratio": statistics.median(found),
                        "range": [min(found), max(found)],
                    }
                )
    RESULT.write_text(
        json.dumps({"limit": 1.5, "lines": lines, "saving": saving(), "runs": whole_runs()}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()

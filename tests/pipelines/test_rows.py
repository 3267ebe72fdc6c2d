"""Rows of a pool on their way to a model: read once, long ones in full, bad ones at the cost of one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate import config
from curate.engine import flow
from curate.errors import DataError
from curate.models import loading
from curate.models.losses import batch_token_losses
from curate.reports.progress import Silent
from curate.runs import batches, tokens
from curate.runs.job import open_job
from curate.sources.long_rows import pieces
from curate.storage import tables
from tests.pipelines import tiny_world

STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + tiny_world.CHAT
)


class Notes(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tiny_world.World:
    return tiny_world.make(tmp_path_factory.mktemp("rows"))


def chats(root: Path, world: tiny_world.World, bad: tuple[int, ...]) -> dict[str, Any]:
    """Forty chats, some with a system turn, which the template refuses; a target, a model."""
    model = tiny_world.write_model(root / "model", "llama")
    (model / "chat_template.jinja").write_text(STRICT)
    said = [
        [{"role": "user", "content": "what?"}, {"role": "assistant", "content": text}] for text in tiny_world.texts(40)
    ]
    system = [{"role": "system", "content": "Be brief."}]
    pool = [{"id": row, "messages": (system if row in bad else []) + turns} for row, turns in enumerate(said)]
    for name, rows in (("pool", pool), ("target", [{"messages": turns} for turns in said[:6]])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return world.settings(
        pool={"path": str(root / "pool.jsonl")}, target={"path": str(root / "target.jsonl")}, model={"name": str(model)}
    )


def test_a_row_that_the_template_refuses_costs_one_row(world, tmp_path):
    content = chats(tmp_path, world, bad=(23,))
    content["pool"]["on_bad_row"] = "drop"
    found, said = tmp_path / "run", Notes()
    flow.run(config.validate(content), found, observer=said)
    reason = "the chat template refuses it: System role not supported"
    assert tiny_world.dropped(found) == [reason]
    assert sorted(tiny_world.written(found)["id"].to_pylist()) == [row for row in range(40) if row != 23]
    assert f"set aside 1 of 40 rows (2.5%): 1 × {reason}" in said.said


def test_or_it_is_an_error_with_file_and_row_before_a_model_is_loaded(world, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(
        DataError, match=r"pool.jsonl, row 23 \(line 24\): found the chat template refuses it: System role"
    ):
        flow.run(config.validate(chats(tmp_path, world, bad=(23,))), tmp_path / "run")


def test_more_bad_rows_than_are_allowed_end_the_run_with_their_reasons_and_it_goes_on_when_they_are(world, tmp_path):
    content = chats(tmp_path, world, bad=(1, 2, 3))
    content["pool"]["on_bad_row"] = "drop"
    with pytest.raises(
        DataError, match=r"3 of 40 rows that cannot be read \(7.5%\): 3 × .*at most 5% \(pool.max_dropped\)"
    ):
        flow.run(config.validate(content), tmp_path / "run")
    assert not (tmp_path / "run" / "features").exists()
    content["pool"]["max_dropped"] = 0.1
    flow.run(config.validate(content), tmp_path / "run")
    assert len(tiny_world.dropped(tmp_path / "run")) == 3


def long_pool(root: Path) -> dict[str, Any]:
    """Thirty texts; every third one is ten times as long as the model reads at a time."""
    lines = [
        " ".join(tiny_world.texts(30)[row:] * (6 if row % 3 == 0 else 1))[: 700 if row % 3 == 0 else 40]
        for row in range(30)
    ]
    (root / "pool.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return {"path": str(root / "pool.jsonl"), "shard_rows": 10}


@pytest.mark.parametrize("kind", ["losses", "gradients"])
def test_the_feature_of_a_long_row_is_the_mean_over_its_chunks_by_tokens(world, tmp_path, kind):
    """The oracle makes a row of every chunk."""
    features = {"name": kind, **({"projection": {"dim": 64}} if kind == "gradients" else {})}
    method = {"name": "perplexity" if kind == "losses" else "less"}
    model = {"max_tokens": 16, "long_rows": "chunks"}
    content = world.settings(pool=long_pool(tmp_path), model=model, features=features, method=method)
    run = flow.run(config.validate(content), tmp_path / "run")
    job = open_job(str(run))
    language_model = loading.load(job.model_path, config=job.model_config, seed=0, tokenizer=job.tokenizer_path)
    stored = tables.read_arrow(job.paths.features(0))
    rows = tokens.stored(job, 0).rows()
    cut = pieces(rows, 16)
    assert max(np.bincount(cut.rows)) > 3
    losses = np.zeros((10, 2))
    for batch in batches.laid_out(cut.tokens, 64, packed=False):
        found = batch_token_losses(language_model, batch).detach()
        for line, piece in enumerate(batch.rows):
            losses[cut.rows[piece]] += [
                float(found[line][batch.predicted[line]].sum()),
                int(batch.predicted[line].sum()),
            ]
    np.testing.assert_allclose(stored["loss"].to_numpy(), losses[:, 0] / losses[:, 1], rtol=2e-5)
    assert losses[:, 1].astype(int).tolist() == [len(row.ids) - 1 for row in rows if row is not None]
    assert stored["tokens"].to_pylist() == [len(row.ids) for row in rows if row is not None]


@pytest.mark.parametrize("method", ["bds", "blade"])
def test_a_training_reads_long_rows_chunk_by_chunk_with_the_same_bytes(world, tmp_path, method):
    settings = {"bds": {"name": "bds", "loop": {"passes": 2, "batch_tokens": 128}}, "blade": {"name": "blade"}}[method]
    model = {"max_tokens": 16, "long_rows": "chunks"}
    content = world.settings(pool=long_pool(tmp_path), model=model, method=settings, features=None)
    runs = [flow.run(config.validate(content), tmp_path / name) for name in ("one", "two")]
    assert tiny_world.promised(runs[0]) == tiny_world.promised(runs[1])
    assert np.isfinite(tiny_world.weights(runs[0])).all()


def test_a_run_says_how_much_of_long_rows_it_reads(world, tmp_path):
    said = Notes()
    content = world.settings(pool=long_pool(tmp_path), model={"max_tokens": 16})
    run = flow.run(config.validate(content), tmp_path / "run", observer=said)
    [line] = [line for line in said.said if "of the tokens are read" in line]
    counted = [json.loads(path.read_text())["facts"] for path in sorted((run / "commits" / "tokenize").glob("*.json"))]
    share = sum(each["tokens"] for each in counted) / sum(each["whole"] for each in counted)
    assert share < 0.5
    assert line.startswith(f"{share:.1%} of the tokens are read: ")
    assert "model.long_rows is cut (`chunks` reads all of a row)" in line
    assert f"{share:.1%}" in tiny_world.manifest(run)["tokens_read"]
    assert f"{share:.1%}".replace(".", "\\.").replace("%", "") in (run / "dataset" / "README.md").read_text()
    assert f"{share:.1%} of the tokens are read" in (run / "report.html").read_text()


def test_rows_are_tokenised_once_a_run(world, tmp_path, monkeypatch):
    """However many passes a training makes over them, and whoever reads them after it."""
    made: list[int] = []
    monkeypatch.setattr(
        tokens,
        "made",
        lambda job, table, section, make=tokens.made: made.append(len(table)) or make(job, table, section),
    )
    content = world.settings(method={"name": "blade"}, features=None)
    flow.run(config.validate(content), tmp_path / "run")
    assert sum(made) == 60 + 6

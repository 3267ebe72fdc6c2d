"""What `curate inspect FILE --rows` shows of rows before any run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate.errors import ConfigError
from curate.results.preview import preview
from tests.pipelines import tiny_world


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_world.write_model(tmp_path_factory.mktemp("model"), "llama", weights=False)


@pytest.fixture
def chats(tmp_path) -> Path:
    turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "the cat sat"}]
    rows = [{"conversations": turns}, {"conversations": turns[:1]}, {"conversations": turns * 40}]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "chats.jsonl"


def test_the_answer_is_marked_a_bad_row_has_its_reason_and_a_long_one_its_share(chats, model):
    found = preview(chats, 5, str(model))
    assert found.columns == {"messages": "conversations"}
    first, second, third = found.rows
    assert [(piece.text, piece.loss) for piece in first.pieces] == [
        ("<|user|>what?<|end|><|assistant|>", False),
        ("the cat sat<|end|>", True),
    ]
    assert second.reason == 'column "conversations": no assistant turn'
    assert (third.tokens, third.whole) == (512, 40 * first.tokens)


def test_without_a_model_the_texts_are_shown(chats):
    assert [row.pieces[0].text for row in preview(chats, 1).rows] == ["what?\nthe cat sat"]


def test_a_pipeline_file_says_how_rows_are_read(chats, model, tmp_path):
    file = tmp_path / "p.yaml"
    pool = f"pool: {{path: {chats}, loss_on: last, on_bad_row: drop}}\n"
    file.write_text(f"{pool}model: {{name: {model}, max_tokens: 12}}\nmethod: {{name: random}}\n")
    row = preview(file, 3).rows[2]
    assert (row.tokens, row.reason) == (None, "no token to predict within max_tokens")


def test_what_is_no_name_of_a_model_is_refused(chats):
    with pytest.raises(ConfigError, match="--model"):
        preview(chats, 1, "")

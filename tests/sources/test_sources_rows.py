"""Which rows are refused, with which reason, and how they are named."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import DataError
from curate.sources.base import PoolConfig, TargetConfig, read, scan, shards
from curate.sources.rows import check, first_bad

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def test_null_and_blank_text_is_refused_and_odd_text_is_not():
    table = pa.table({"text": ["a", None, "", " \n\t\u3000", "\0", "\u202e", "\ufeffb"]})
    reasons = check(table, PoolConfig(path="x"))
    assert reasons == [None, 'column "text": null', *['column "text": empty'] * 2, None, None, None]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string()])
def test_every_string_type_is_text(kind):
    assert check(pa.table({"text": pa.array(["a", ""], kind)}), PoolConfig(path="x")) == [None, 'column "text": empty']


def test_a_column_of_nulls_or_numbers_refuses_every_row():
    assert check(pa.table({"text": pa.nulls(2)}), PoolConfig(path="x")) == ['column "text": null'] * 2
    assert check(pa.table({"text": [1, 2]}), PoolConfig(path="x")) == ['column "text": not a string (int64)'] * 2


def test_prompt_and_completion_are_both_needed():
    table = pa.table({"q": ["a", None, "c", None], "a": ["x", "y", "", None]})
    reasons = check(table, PoolConfig(path="x", prompt="q", completion="a"))
    assert reasons == [None, 'column "q": null', 'column "a": empty', 'column "q": null']


CONVERSATIONS = [
    ([USER, ANSWER], None),
    ([{"role": "system", "content": "s"}, USER, ANSWER], None),
    ([USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}], None),
    (None, "null"),
    ("user: hi", "not a list (str)"),
    ([], "no assistant turn"),
    ([USER], "no assistant turn"),
    ([USER, {"role": "assistant", "content": None}], "turn 1: null content"),
    ([{"role": "wizard", "content": "a"}, ANSWER], 'turn 0: unknown role "wizard"'),
    ([{"from": "human", "value": "a"}, ANSWER], None),
    ([{"from": "wizard", "value": "a"}, ANSWER], 'turn 0: unknown role "wizard"'),
    ([None, ANSWER], "turn 0: not an object (NoneType)"),
    ([USER, {"role": "assistant", "content": ["part"]}], None),
    (
        [USER, {"role": "assistant", "content": [{"type": "image"}]}],
        'turn 1: a part of type "image"; only text is read',
    ),
]


@pytest.mark.parametrize(("turns", "fault"), CONVERSATIONS)
def test_conversations_without_a_usable_answer_are_refused(turns, fault):
    column = pa.ExtensionArray.from_storage(
        pa.json_(), pa.array([None if turns is None else json.dumps(turns)], pa.string())
    )
    reason = check(pa.table({"chat": column}), PoolConfig(path="x", messages="chat"))
    assert reason == [fault and f'column "chat": {fault}']


def test_the_first_bad_row_is_named_by_its_row_in_the_file(tmp_path):
    pq.write_table(pa.table({"text": ["a"] * 17 + [None, ""]}), tmp_path / "part-00003.parquet")
    config = PoolConfig(path=str(tmp_path))
    source = scan(config, shard_rows=10)
    first, second = shards(source, shard_rows=10)
    first_bad(check(read(first, source.schema), config), first, config)
    reasons = check(read(second, source.schema), config)
    with pytest.raises(DataError) as caught:
        first_bad(reasons, second, config)
    assert str(caught.value).endswith(
        'part-00003.parquet, row 17, column "text": found null; expected a non-empty string. '
        "Fix it, or set pool.on_bad_row: drop."
    )
    with pytest.raises(DataError, match="Fix or remove it"):
        first_bad(reasons, second, TargetConfig(path="x"))

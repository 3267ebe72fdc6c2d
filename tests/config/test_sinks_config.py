from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.errors import ConfigError
from curate.sinks.base import OutputConfig, check_collision


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "filtered"},
        {"mode": "filtered", "keep": 0.5, "tokens": 10},
        {"mode": "filtered", "keep": 0.0},
        {"mode": "filtered", "keep": 1.1},
        {"mode": "filtered", "keep": 0.5, "rows": 3},
        {"mode": "resampled"},
        {"mode": "resampled", "rows": 3, "keep": 0.5},
        {"mode": "resampled", "rows": 3, "hard": True},
        {"keep": 0.5},
        {"rows": 5},
        {"hard": True},
        {"weight_column": ""},
        {"mode": "sorted"},
    ],
)
def test_settings_that_contradict_the_mode_are_refused(settings):
    with pytest.raises(ValidationError):
        OutputConfig(**settings)


def test_each_mode_has_a_valid_form():
    for settings in (
        {},
        {"mode": "filtered", "tokens": 1e9},
        {"mode": "filtered", "keep": 1},
        {"mode": "resampled", "rows": 5},
    ):
        OutputConfig.model_validate(settings)


def test_a_taken_weight_column_is_refused_with_a_free_name():
    schema = pa.schema([("weight", pa.float32()), ("curate_weight", pa.float32())])
    with pytest.raises(ConfigError, match=r"output\.weight_column: curate_weight_2"):
        check_collision(schema, OutputConfig())
    check_collision(schema, OutputConfig(mode="resampled", rows=3))
    check_collision(schema, OutputConfig(weight_column="w"))


def test_a_taken_token_weight_column_is_refused_where_tokens_are_weighed():
    schema = pa.schema([("token_weight", pa.string())])
    with pytest.raises(ConfigError, match=r"output\.token_weight_column: curate_token_weight"):
        check_collision(schema, OutputConfig(), token_level=True)
    check_collision(schema, OutputConfig())
    check_collision(schema, OutputConfig(token_weight_column="w"), token_level=True)
    check_collision(schema, OutputConfig(mode="resampled", rows=3), token_level=True)


def test_the_two_columns_of_weights_have_names_of_their_own():
    with pytest.raises(ValueError, match="the same name"):
        OutputConfig(weight_column="w", token_weight_column="w")

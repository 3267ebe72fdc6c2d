"""The pipeline file: what is refused, with which line, and what a value means."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import config
from curate.config import strict_yaml
from curate.errors import ConfigError
from curate.methods.registry import METHODS

SMALLEST = "pool: {path: pool.parquet}\nmethod: {name: random}\n"
PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("*.yaml"))
VECTOR_READERS = [name for name, entry in METHODS.items() if entry.features == "gradients"]
"""Methods that compare any kind of vectors with the target's."""


@pytest.fixture
def refused(tmp_path):
    """A function that loads text and gives the error it must raise."""

    def load(text: str, *overrides: str) -> ConfigError:
        file = tmp_path / "a.yaml"
        file.write_text(text)
        with pytest.raises(ConfigError) as error:
            config.load(file, list(overrides))
        return error.value

    return load


@pytest.fixture
def loaded(tmp_path):
    """A function that loads text."""

    def load(text: str, *overrides: str) -> config.Pipeline:
        file = tmp_path / "a.yaml"
        file.write_text(text)
        return config.load(file, list(overrides))

    return load


@pytest.mark.parametrize(
    ("text", "line", "key", "meant"),
    [
        ("poool: {path: x}\n", 3, "poool", "pool"),
        ("output: {mode: filtered,\n  kep: 0.3}\n", 4, "output.kep", "keep"),
        ("features:\n  projection:\n    dimm: 8\n", 5, "features.projection.dimm", "dim"),
        ("features: {name: gradients,\n  projecton: {}}\n", 4, "features.projecton", "projection"),
        ("features: {name: ngrams,\n  din: 8}\n", 4, "features.din", "dim"),
        ("features: {name: embeddings,\n  batch_token: 8}\n", 4, "features.batch_token", "batch_tokens"),
        ("features: {name: losses,\n  on_nonfinit: drop}\n", 4, "features.on_nonfinit", "on_nonfinite"),
        ("model:\n  name: m\n  lora: {rnk: 4}\n", 5, "model.lora.rnk", "rank"),
        ("target:\n- path: t\n- path: u\n  nme: v\n", 6, "target.1.nme", "name"),
        ("cluster:\n  worker: 2\n", 4, "cluster.worker", "workers"),
    ],
)
def test_an_unknown_key_is_refused_with_its_line_and_the_one_meant(refused, text, line, key, meant):
    error = refused(SMALLEST + text)
    assert error.where.endswith(f"a.yaml:{line}: {key}")
    assert error.found == "an unknown key"
    assert error.fix == f"Did you mean `{meant}`?"


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_key_of_every_method_is_refused(refused, method):
    error = refused(
        f"pool: {{path: x}}\ntarget: {{path: t}}\nmodel: {{name: m}}\nmethod:\n  name: {method}\n  colour: red\n"
    )
    assert error.where.endswith("a.yaml:6: method.colour")
    assert "name" in error.fix


def test_an_unknown_key_that_resembles_none_is_answered_with_the_known_ones(refused):
    assert (
        "Known keys: cluster, evaluation, features, method, model, online, output, pool, refine, report, seed, target."
        in str(refused(SMALLEST + "zebra: 1\n"))
    )


def test_a_duplicate_key_is_refused_with_both_lines(refused):
    error = refused("seed: 1\npool: {path: x}\nmethod: {name: random}\nseed: 2\n")
    assert error.where.endswith("a.yaml:4: seed")
    assert "first in line 1" in error.found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pool: &p {path: x}\ntarget: *p\n", "an alias (*name)"),
        ("pool: !!python/object/apply:os.system ['true']\n", "the tag"),
        ("pool: {path: !!python/name:os.system x}\n", "the tag tag:yaml.org,2002:python/name:os.system"),
        ("pool: !!set {a, b}\n", "the tag"),
        ("seed: !!int abc\n", "the tag"),
        ("pool: {path: ! x}\n", "the tag"),
        ("pool: {path: x\n", "expected"),
        ("- a\n- b\n", "list"),
        ("just words\n", "str"),
        ("pool: {path: 'a\x00b'}\n", "special characters"),
    ],
)
def test_yaml_beyond_plain_values_is_refused(refused, text, found):
    error = refused(text)
    assert found in error.found
    assert "a.yaml" in error.where


def test_bytes_that_are_not_utf8_are_refused(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes(b"pool: {path: '\xff\xfe\x00'}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml"):
        config.load(file)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_a_nest_bomb_is_refused_not_a_crash(refused, opening):
    refused(opening * 200_000)


def test_a_billion_laughs_are_refused_at_the_first_alias(refused):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    assert "alias" in refused("\n".join(lines)).found


def test_a_huge_file_is_refused_before_it_is_parsed(refused):
    assert "bytes" in refused(SMALLEST + "# " + "x" * (1 << 20)).found


def test_an_absent_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: found No such file"):
        config.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("1e-3", 1e-3), ("1E+2", 100.0), (".5", 0.5), ("1_000.5", 1000.5), ("7", 7.0), ("-0x1f", None), (".nan", None)],
)
def test_a_number_is_what_it_looks_like(tmp_path, written, meant):
    """PyYAML takes 1e-3 for text: YAML 1.1 wants a dot. People write 1e-3."""
    content, _ = strict_yaml.parse(f"value: {written}".encode(), "a.yaml")
    if meant is None:
        assert content["value"] != meant
    else:
        assert content["value"] == meant
        assert isinstance(content["value"], float | int)


@pytest.mark.parametrize("text", ["no", "yes", "on", "off", "NO", "12:30:00", "2024-01-01", "0o17", "0x1f", "1.2.3"])
def test_words_dates_and_times_are_text(text):
    content, _ = strict_yaml.parse(f"value: {text}".encode(), "a.yaml")
    assert content["value"] == text


def test_underscores_group_digits_in_counts_and_budgets(loaded):
    assert loaded(SMALLEST + "seed: 1_000\n").seed == 1000


def test_a_learning_rate_of_1e_3_is_a_float_in_the_pipeline(loaded):
    text = SMALLEST + "model: {name: m, warmup: {learning_rate: 1e-3}}\n"
    pipeline = loaded(text)
    assert pipeline.model is not None
    assert pipeline.model.warmup is not None
    assert pipeline.model.warmup.learning_rate == 1e-3


def test_a_budget_of_1e9_tokens_is_read(loaded):
    text = SMALLEST + "model: {name: m}\noutput: {mode: filtered, tokens: 1e9}\n"
    assert loaded(text).output.tokens == 1e9


@pytest.mark.parametrize(
    ("text", "line", "key", "expected"),
    [
        ("seed: one\n", 3, "seed", "valid integer"),
        ("seed: 1.5\n", 3, "seed", "integer"),
        ("seed: true\n", 3, "seed", "integer"),
        ("report:\n  show_text: no\n", 4, "report.show_text", "boolean"),
        ("pool2: 1\n", 3, "pool2", "a key of this section"),
        ("features: {dtype: float64}\n", 3, "features.dtype", "'float16', 'float32', 'int8' or 'bits'"),
        ("output: {mode: filtered, keep: 0}\n", 3, "output.keep", "greater than 0"),
        ("output:\n  mode: filtered\n", 3, "output", "exactly one of keep, tokens, threshold"),
        ("output: {keep: 0.3}\n", 3, "output", "keep has no meaning with mode: weighted"),
        ("output: {mode: resampled}\n", 3, "output", "needs rows"),
        ("features: [1]\n", 3, "features", "dictionary"),
        ("target: 3\n", 3, "target", ""),
        ("cluster: {workers: many}\n", 3, "cluster.workers", ""),
        ("cluster: {workers: -1}\n", 3, "cluster.workers", "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_refused_with_line_key_and_what_is_expected(refused, text, line, key, expected):
    error = refused(SMALLEST + text)
    assert error.where.endswith(f"a.yaml:{line}: {key}"), error.where
    assert expected in error.expected


def test_an_unknown_method_is_answered_with_the_one_meant(refused):
    error = refused("pool: {path: x}\nmethod:\n  name: randon\n")
    assert error.where.endswith("a.yaml:3: method.name")
    assert error.found == "'randon'"
    assert error.fix == "Did you mean `random`?"


@pytest.mark.parametrize("name", ["os.system", "curate.methods.bds", "../bds", ""])
def test_a_method_is_named_by_the_registry_only(refused, name):
    assert "one of uniform, random" in refused(f"pool: {{path: x}}\nmethod: {{name: '{name}'}}\n").expected


@pytest.mark.parametrize(("text", "key"), [("method: {name: random}\n", "pool"), ("pool: {path: x}\n", "method")])
def test_a_missing_section_is_named(refused, text, key):
    error = refused(text)
    assert error.where.endswith(f": {key}")
    assert error.found == "nothing"


def test_an_empty_file_is_refused(refused):
    assert refused("").found == "nothing"


def test_a_method_without_a_name_is_refused(refused):
    error = refused("pool: {path: x}\nmethod:\n  damping: 3.0\n")
    assert "method.name" in error.where
    assert "one of uniform, random" in error.expected


@pytest.mark.parametrize("name", VECTOR_READERS)
def test_a_method_that_reads_gradients_needs_a_model_and_a_target(refused, name):
    method = f"pool: {{path: x}}\nmethod: {{name: {name}}}\n"
    assert "a `model` section is needed" in refused(method + "target: {path: t}\n").expected
    assert "a `target` section is needed" in refused(method + "model: {name: m}\n").expected
    assert "a `target` section is needed" in refused(method + "model: {name: m}\ntarget: []\n").expected


@pytest.mark.parametrize("name", VECTOR_READERS)
def test_a_method_over_ngrams_needs_a_target_and_no_model(loaded, refused, name):
    text = f"pool: {{path: x}}\nmethod: {{name: {name}}}\nfeatures: {{name: ngrams}}\n"
    assert "a `target` section is needed" in refused(text).expected
    pipeline = loaded(text + "target: {path: t}\n")
    assert pipeline.reads_features
    assert not pipeline.reads_model


def test_a_token_budget_reads_the_proxys_tokenizer_whatever_the_features(loaded, refused):
    text = "pool: {path: x}\ntarget: {path: t}\nmethod: {name: less}\nfeatures: {name: ngrams}\n"
    text += "output: {mode: filtered, tokens: 9}\n"
    assert "a `model` section" in refused(text).expected
    assert loaded(text + "model: {name: m}\n").reads_model


@pytest.mark.parametrize("name", VECTOR_READERS)
def test_a_method_refuses_a_kind_of_feature_that_it_cannot_use(refused, name):
    text = f"pool: {{path: x}}\ntarget: {{path: t}}\nmodel: {{name: m}}\nmethod: {{name: {name}}}\nfeatures: {{name: losses}}\n"
    assert f"method {name} cannot use features.name: losses; it reads one of gradients" in refused(text).expected


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.features not in ("", "gradients")])
def test_a_method_with_features_of_its_own_reads_these_only(loaded, refused, name):
    kind, needs_target = METHODS[name].features, METHODS[name].method().needs_target
    text = f"pool: {{path: x}}\nmodel: {{name: m}}\nmethod: {{name: {name}}}\n"
    other = text + "features: {name: gradients}\n"
    assert f"cannot use features.name: gradients; it reads one of {kind}" in refused(other).expected
    assert "settings that do not go together" in refused(other).found
    assert loaded(text + "target: {path: t}\n").features.name == kind, "the kind that is its own, without a word"
    text += f"features: {{name: {kind}}}\n"
    assert loaded(text + "target: {path: t}\n").reads_features
    if needs_target:
        assert "a `target` section is needed" in refused(text).expected
    else:
        assert loaded(text).targets == []


def test_an_unknown_kind_of_feature_is_answered_with_the_one_meant(refused):
    error = refused(SMALLEST + "features:\n  name: ngram\n")
    assert error.where.endswith("a.yaml:4: features.name")
    assert (error.found, error.fix) == ("'ngram'", "Did you mean `ngrams`?")
    assert error.expected == "one of gradients, losses, embeddings, ngrams"


def test_features_without_a_name_are_gradients(loaded):
    assert loaded(SMALLEST).features == loaded(SMALLEST + "features: {}\n").features
    assert loaded(SMALLEST + "features: {projection: {dim: 8}}\n").features.name == "gradients"


@pytest.mark.parametrize("key", ["projection: {dim: 8}", "optimizer: adam", "batch_tokens: 9", "dtype: bits"])
def test_a_setting_of_another_kind_of_feature_is_refused(refused, key):
    assert "features" in refused(SMALLEST + f"features: {{name: ngrams, {key}}}\n").where


def test_checkpoints_need_a_step_of_the_warm_up_each(loaded, refused):
    text = SMALLEST + "model: {name: m, warmup: {tokens: 1000, batch_tokens: 300, checkpoints: %d}}\n"
    assert loaded(text % 3).model.warmup.checkpoints == 3
    error = refused(text % 4)
    assert error.where.endswith("model.warmup")
    assert "at least checkpoints x batch_tokens" in error.expected


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.reads == "nothing"])
def test_a_method_that_reads_nothing_needs_neither(loaded, name):
    assert not loaded(f"pool: {{path: x}}\nmethod: {{name: {name}}}\n").reads_features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target: [{path: a}, {path: b}]\n", "two targets have the same name"),
        ("output: {mode: filtered, tokens: 10}\n", "a `model` section with a tokenizer is needed"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(refused, text, expected):
    assert expected in refused(SMALLEST + text).expected


def test_adam_features_need_a_warm_up(refused):
    text = "pool: {path: x}\ntarget: {path: t}\nmodel: {name: m}\nfeatures: {optimizer: adam}\nmethod: {name: less}\n"
    assert "model.warmup" in refused(text).expected


@pytest.mark.parametrize(
    "columns", ["{path: x, text: a, messages: b}", "{path: x, prompt: a}", "{path: x, text: a, completion: b}"]
)
def test_a_pool_has_one_kind_of_text(refused, columns):
    assert "one kind of text" in refused(f"pool: {columns}\nmethod: {{name: random}}\n").expected


def test_set_replaces_and_adds_keys(loaded):
    pipeline = loaded(SMALLEST, "seed=3", "output.mode=filtered", "output.keep=5e-1", "method={name: uniform}")
    assert (pipeline.seed, pipeline.output.keep, pipeline.method.name) == (3, 0.5, "uniform")


@pytest.mark.parametrize("item", ["seed", "=3", "a..b=1", "a b=1", "output.mode", "seed.deep=1"])
def test_a_malformed_set_is_refused(refused, item):
    assert "--set" in refused(SMALLEST, item).where


@pytest.mark.parametrize("item", ["seed=one", "sed=1", "output.keep=2", "pool.path=[", "seed=*x", "seed=!!python/x 1"])
def test_a_set_is_checked_like_the_file(refused, item):
    refused(SMALLEST, item)


def test_a_wrong_set_is_blamed_on_the_command_line_not_on_the_file(refused):
    """The message once named line 1 of the file for a value that was given with --set."""
    error = refused(SMALLEST, "output.mode=filtered", "output.keep=2")
    assert error.where == "--set output.keep=2: output.keep"
    assert refused(SMALLEST, "output.kep=2").where == "--set output.kep=2: output.kep"
    assert refused(SMALLEST, "output.keep=0.5").where == "--set output.keep=0.5: output"
    assert refused(SMALLEST + "output: {mode: weighted}\n", "output.keep=0.5").where.endswith("a.yaml:3: output")
    assert "a.yaml:2" in refused(SMALLEST.replace("random", "randon"), "seed=1").where


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e400", "9" * 5000, "-1", str(2**63)])
def test_numbers_without_meaning_are_refused(refused, number):
    for text in (f"seed: {number}\n", f"model: {{name: m}}\noutput: {{mode: filtered, tokens: {number}}}\n"):
        if number != str(2**63) or "seed" in text:
            refused(SMALLEST + text)


KEYS = st.sampled_from(["pool", "name", "path", "method", "target", "output"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text("ab:{}[]-*&! \n\t'\"#")


@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner), max_leaves=8))
@settings(max_examples=200, deadline=None)
def test_whatever_the_file_says_the_answer_is_a_pipeline_or_a_config_error(content):
    text = yaml.safe_dump(content).encode()
    with contextlib.suppress(ConfigError):
        parsed, _ = strict_yaml.parse(text, "a.yaml")
        assert isinstance(config.validate(parsed), config.Pipeline)


def test_a_resolved_pipeline_reads_back_as_itself(loaded):
    pipeline = loaded(SMALLEST + "model: {name: m, lora: {rank: 4}}\ntarget: [{path: t, name: a}]\n")
    assert config.validate(json.loads(json.dumps(config.to_dict(pipeline)))) == pipeline


def test_the_schema_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(config.schema())


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: file.stem)
def test_the_schema_and_the_loader_accept_every_ready_made_pipeline(file):
    content, _ = strict_yaml.parse(file.read_bytes(), file.name)
    jsonschema.validate(content, config.schema())
    config.load(file)


@pytest.mark.parametrize("change", [{"seed": "one"}, {"sed": 1}, {"method": {"name": "bsd"}}, {"pool": {}}])
def test_the_schema_refuses_what_the_loader_refuses(change):
    content = {"pool": {"path": "x"}, "method": {"name": "random"}, **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, config.schema())
    with pytest.raises(ConfigError):
        config.validate(content)


def fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(section.key, schema) of every key of every section."""
    sections = {"Pipeline": schema, **schema["$defs"]}
    return [
        (f"{name}.{key}", schema["$defs"].get(field.get("$ref", "").removeprefix("#/$defs/"), {}) | field)
        for name, section in sections.items()
        for key, field in section["properties"].items()
    ]


@pytest.mark.parametrize(("key", "field"), fields(config.schema()))
def test_every_key_is_described(key, field):
    assert len(field.get("description", "")) > 5, f"{key} has no docstring"


def test_no_key_is_named_like_a_secret():
    names = [key.split(".")[1].lower() for key, _ in fields(config.schema())]
    assert not [name for name in names if any(word in name for word in ("secret", "password", "api_key", "credential"))]
    assert "token" not in names

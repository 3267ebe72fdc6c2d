"""Hub datasets, through the real client, against a Hub on the loopback interface."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from curate.errors import ConfigError, DataError, ResourceError
from curate.sources import hub as hub_source
from curate.sources.base import PoolConfig, read, scan, shards
from tests.hub.repository import Commit, File, Repository
from tests.hub.server import Hub, serving

OLD, NEW = "a" * 40, "b" * 40


def parquet(*texts: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), sink)
    return sink.getvalue()


FILES = {
    "README.md": b"# A dataset\n",
    "dataset_infos.json": b"{}",
    ".gitattributes": b"",
    "data/train-00000-of-00002.parquet": parquet("a", "b"),
    "data/train-00001-of-00002.parquet": parquet("c"),
    "data/test-00000-of-00001.parquet": parquet("held out"),
    "extra/train.jsonl": b'{"text": "other format"}\n',
}


def commit(files: dict[str, bytes]) -> Commit:
    return Commit(None, "made", {path: File(data) for path, data in files.items()})


@pytest.fixture
def repository() -> Repository:
    commits = {OLD: commit({"train.jsonl": b'{"text": "old"}\n'}), NEW: commit(FILES)}
    return Repository("org/texts", commits=commits, refs={"main": NEW, "v1": OLD})


@pytest.fixture
def hub(repository, tmp_path, monkeypatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(Hub({repository.name: repository})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


def texts(config: PoolConfig) -> list[str]:
    source = scan(config, shard_rows=2)
    cut = shards(source, shard_rows=2)
    return [text for shard in cut for text in read(shard, source.schema)["text"].to_pylist()]


def test_a_dataset_id_reads_its_train_split_at_one_commit(hub):
    source = scan(PoolConfig(path="org/texts"), shard_rows=2)
    assert source.revision == NEW
    assert [file.rows for file in source.files] == [2, 1]
    assert texts(PoolConfig(path="org/texts")) == ["a", "b", "c"]
    assert all(f"/resolve/{NEW}/" in line for line in hub.lines if "/resolve/" in line)


def test_the_resolved_commit_stays_when_the_branch_moves(hub, repository):
    before = scan(PoolConfig(path="org/texts"), shard_rows=2)
    repository.refs["main"] = OLD
    after = scan(PoolConfig(path="org/texts", revision=before.revision), shard_rows=2)
    assert after == before
    assert scan(PoolConfig(path="org/texts"), shard_rows=2).revision == OLD


def test_revision_and_split_choose_what_is_read(hub):
    assert texts(PoolConfig(path="org/texts", split="test")) == ["held out"]
    assert texts(PoolConfig(path="org/texts", revision="v1")) == ["old"]
    assert texts(PoolConfig(path="hf://datasets/org/texts@v1")) == ["old"]
    assert texts(PoolConfig(path="hf://datasets/org/texts/data/test-*")) == ["held out"]
    assert texts(PoolConfig(path="hf://datasets/org/texts/extra")) == ["other format"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"path": "org/texs"}, 'pool.path: found "org/texs", neither a local path nor a Hub dataset'),
        ({"path": "org/texts", "revision": "v9"}, "pool.revision: found no such revision"),
        ({"path": "org/texts", "split": "tests"}, 'pool.split.*Did you mean "test"'),
        ({"path": "hf://models/org/texts"}, "hf://datasets/ORG/NAME"),
        ({"path": "hf://datasets/org/texts/none/*"}, "no data file"),
        ({"path": "org/texts", "text": "body"}, "pool.text: found no column"),
    ],
)
def test_what_is_not_there_is_a_config_error(hub, config, message):
    with pytest.raises(ConfigError, match=message):
        scan(PoolConfig(**config), shard_rows=1)


def test_several_subsets_are_not_mixed(hub, repository):
    repository.commits[NEW] = commit({"en/train.parquet": parquet("e"), "de/train.parquet": parquet("d")})
    with pytest.raises(ConfigError, match=r'several subsets: "de", "en".*hf://datasets/org/texts/de'):
        scan(PoolConfig(path="org/texts"), shard_rows=1)
    assert texts(PoolConfig(path="hf://datasets/org/texts/de")) == ["d"]


@pytest.mark.parametrize(
    "name", ["../train.parquet", "data/../../train.parquet", "/etc/train.parquet", "a\\train.parquet"]
)
def test_a_listing_may_not_name_files_outside_the_repository(hub, repository, name):
    repository.commits[NEW] = commit({name: parquet("x")})
    with pytest.raises(DataError, match="org/texts: found the file name"):
        scan(PoolConfig(path="org/texts"), shard_rows=1)


def test_a_commit_that_is_not_one_is_refused(hub, repository):
    repository.commits["main"] = commit(FILES)
    repository.refs["main"] = "main"
    with pytest.raises(DataError, match='commit "main"'):
        scan(PoolConfig(path="org/texts"), shard_rows=1)


def test_an_unreachable_hub_is_a_resource_error(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ResourceError, match="no answer from the Hub"):
        scan(PoolConfig(path="org/texts"), shard_rows=1)


def test_what_exists_locally_never_asks_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert not hub_source.is_hub("data/pool")
    assert not hub_source.is_hub("other/pool.parquet")
    assert not hub_source.is_hub("a/b/c")
    assert hub_source.is_hub("org/name")
    assert hub_source.is_hub("hf://datasets/org/name")

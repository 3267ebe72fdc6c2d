"""run.json: the resolved config, the environment and the inputs of a run, written first and never changed but for output."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import ConfigError, IntegrityError
from curate.storage import atomic, records
from curate.storage.fingerprint import fingerprint
from curate.storage.paths import RunPaths

FREE_SECTIONS = ("output", "cluster", "report", "evaluation", "online")
"""Sections that a resume may change: output redoes render and seal; online says how to go on, and each generation what was
done; the others change no promised byte."""

FREE_KEYS = ("pool.max_dropped",)
"""Keys of other sections that it may change too: they decide whether a run goes on, not what it makes."""


@dataclass(frozen=True)
class RunRecord:
    """The content of run.json."""

    curate: str
    environment: dict[str, str]
    """Versions and device that byte identity depends on."""
    config: dict[str, Any]
    pool: dict[str, Any]
    targets: list[dict[str, Any]]
    model: dict[str, Any] | None
    stages: dict[str, str]
    """Fingerprint of every stage of this run, in order."""
    shards: int
    """Parts of the dataset: shards of the pool, and those of the rows that are generated."""
    environment_changes: list[str] = field(default_factory=list)
    """What differed on a resume under `--allow-environment-change`, or where features were taken over from another run:
    byte identity was given up."""
    encoder: dict[str, Any] | None = None
    """Where the model of `features.model` lies, as `model` says it of the proxy."""
    weigher: dict[str, str] | None = None
    """Where the weighting model that the method names lies, and its sha256."""
    generated: int = 0
    """How many of the shards are of generated rows."""
    kept_proxy: dict[str, Any] | None = None
    """The proxy of another run, kept although this pool is another than the one it was warmed up on: the fingerprint of the
    stage that made it, and the sha256 of its files by path. None: this run's proxy is the one its config describes."""


def save(paths: RunPaths, record: RunRecord) -> None:
    """Write run.json."""
    atomic.write_bytes(paths.run, json.dumps(asdict(record), indent=1).encode() + b"\n")


def load(root: Path) -> RunRecord:
    """Read run.json. Raises ConfigError if `root` is no run directory, IntegrityError if it cannot be read."""
    path = RunPaths(root).run
    if not path.is_file():
        raise ConfigError(
            str(root),
            "no run.json",
            "a run directory",
            "Name a directory that `curate run` made, such as runs/quickstart.",
        )
    try:
        return RunRecord(**records.parse(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise IntegrityError(
            str(path), f"unreadable content ({error})", "the record of a run", "Start a new run in another --run-dir."
        ) from error


def compare(old: RunRecord, config: dict[str, Any], *, where: str) -> None:
    """Refuse a resume whose config differs from the run's where features or weights depend on it.

    Raises:
        ConfigError: naming the first differing key with both values. Nothing is deleted.
    """
    before, now = _leaves(old.config), _leaves(config)
    for key in differing(old.config, config):
        free = key.split(".")[0] in FREE_SECTIONS or key in FREE_KEYS
        if free or key.split(".")[-1] == "path":  # paths: content is compared instead
            continue
        raise ConfigError(
            f"{where}: {key}",
            f"{_shown(now, key)}, but this run began with {_shown(before, key)}",
            "the config that the run began with",
            "Start a new run with another --run-dir; for another pool, target or method use `curate weigh`.",
        )


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Dotted keys at which two configs differ, sorted."""
    one, other = _leaves(before), _leaves(now)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def compare_environment(old: RunRecord, environment: dict[str, str]) -> list[str]:
    """What differs between the environment that the run began in and this one, one line each."""
    keys = sorted(old.environment.keys() | environment.keys())
    return [
        f"{key} {old.environment.get(key, 'absent')} → {environment.get(key, 'absent')}"
        for key in keys
        if old.environment.get(key) != environment.get(key)
    ]


def config_hash(config: dict[str, Any]) -> str:
    """Hash of what the dataset depends on: the config without paths, cluster and report."""
    leaves = {
        key: value
        for key, value in _leaves(config).items()
        if key.split(".")[0] not in ("cluster", "report", "evaluation", "online") and key.split(".")[-1] != "path"
    }
    return fingerprint(leaves)


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in items:
        found |= _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def _shown(leaves: dict[str, Any], key: str) -> str:
    return f"{key}: {json.dumps(leaves[key], ensure_ascii=False)}" if key in leaves else f"no {key}"

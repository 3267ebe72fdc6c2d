"""Directories that pages begin in: a few rows, a model of two layers, a finished run.

texts       pool.parquet, pool.jsonl, target.jsonl, held_out.jsonl (columns id, text, domain); model/, a tiny Llama
chats       chats.jsonl, target_chats.jsonl, held_out_chats.jsonl (a column of messages); model/, with a chat template
finished    texts, mine.yaml, and its run in runs/mine
hub         finished, and a Hub on loopback that HF_ENDPOINT names, with a token of the user `me`
online      texts, online.yaml, and the first two generations of its run in runs/online
repository  data/ and pipelines/ of this repository
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.docs.commands import surroundings
from tests.docs.pages import ROOT, PageError
from tests.hub.server import Hub, serving
from tests.pipelines import tiny_world

POOL_ROWS = 120
TOKEN = "hf_" + "Reader" * 6
MINE = """
pool: {path: pool.parquet, text: text, shard_rows: 40}
target: {path: target.jsonl, text: text}
model: {name: model, max_tokens: 48}
features: {projection: {dim: 64}}
method: {name: bds}
evaluation:
  label: {domain: animals}
  data: {path: held_out.jsonl, text: text}
  tokens: 600
  batch_tokens: 200
  measurements: 2
report: {columns: [domain]}
cluster: {workers: 0}
"""
ONLINE = """
pool: {path: pool.parquet, text: text, shard_rows: 40}
target: {path: target.jsonl, text: text}
model: {name: model, max_tokens: 48}
method: {name: blade, loop: {passes: 2, batch_tokens: 200, steps: 4}}
online: {generations: 2, budget: {shards: 2}}
cluster: {workers: 0}
"""


def texts(home: Path) -> None:
    """A pool of two kinds of sentence, a target of one, and a model."""
    domains = [("numbers", "animals")[row % 2] for row in range(POOL_ROWS)]
    pool = {"id": list(range(POOL_ROWS)), "text": tiny_world.texts(POOL_ROWS), "domain": domains}
    pq.write_table(pa.table(pool), home / "pool.parquet")
    lines(home / "pool.jsonl", (dict(zip(pool, row, strict=True)) for row in zip(*pool.values(), strict=True)))
    lines(home / "target.jsonl", ({"text": tiny_world.animal(n)} for n in range(1000, 1016, 2)))
    lines(home / "held_out.jsonl", ({"text": tiny_world.animal(n)} for n in range(2000, 2032, 2)))
    model(home / "model")


def chats(home: Path) -> None:
    """The same as conversations of one question and one answer."""
    lines(home / "chats.jsonl", map(chat, tiny_world.texts(POOL_ROWS)))
    lines(home / "target_chats.jsonl", (chat(tiny_world.animal(n)) for n in range(1000, 1016, 2)))
    lines(home / "held_out_chats.jsonl", (chat(tiny_world.animal(n)) for n in range(2000, 2032, 2)))
    model(home / "model")


def model(place: Path) -> None:
    """A tiny Llama with room for texts as long as pages name; rotary positions need no weights."""
    tiny_world.write_model(place, "llama")
    file = place / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 2048}))


def finished(home: Path) -> None:
    """A run from beginning to end."""
    texts(home)
    (home / "mine.yaml").write_text(MINE)
    curate(home, "run", "mine.yaml")


def online(home: Path) -> None:
    """A run that has made generations."""
    texts(home)
    (home / "online.yaml").write_text(ONLINE)
    curate(home, "online", "online.yaml")


def repository(home: Path) -> None:
    """The repository's inputs; runs stay in the page's own directory."""
    for name in ("data", "pipelines"):
        (home / name).symlink_to(ROOT / name)


WORLDS: dict[str, Callable[[Path], None]] = {
    "": lambda home: None,
    "texts": texts,
    "chats": chats,
    "finished": finished,
    "hub": finished,
    "online": online,
    "repository": repository,
}


def copied(name: str, home: Path, made: Path) -> None:
    """The files of a world in `home`; `made` keeps each world that was made once."""
    if name not in WORLDS:
        raise PageError(f"no world {name!r}; of {', '.join(filter(None, WORLDS))}")
    make = WORLDS[name]
    source = made / make.__name__
    if not source.is_dir():
        source.mkdir()
        make(source)
    shutil.copytree(source, home, symlinks=True, dirs_exist_ok=True)


@contextmanager
def environment(name: str) -> Iterator[dict[str, str]]:
    """The variables of a world, as long as what they name is there."""
    if name != "hub":
        yield {}
        return
    with serving(Hub(tokens={TOKEN: "me"})) as hub:
        yield client_of(hub)


def client_of(hub: Hub) -> dict[str, str]:
    """The variables with which a client talks to a Hub on loopback."""
    return {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}


def chat(text: str) -> dict[str, Any]:
    """A sentence as the answer to a question."""
    asked = {"role": "user", "content": "what do you see?"}
    return {"messages": [asked, {"role": "assistant", "content": text}]}


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of JSON lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def curate(home: Path, *arguments: str) -> None:
    """curate in a process of its own, with paths as a user would give them."""
    line = [sys.executable, "-m", "curate", *arguments]
    subprocess.run(line, cwd=home, env=surroundings(), check=True, capture_output=True, text=True)

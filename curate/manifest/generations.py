"""Generations: committed sets of weights, each whole and unchangeable, and a pointer to the newest.

    generations/00007.json                      what generation 7 is: for every shard the part that holds its weights
    generations/parts/00007/part-00003.arrow    weights of shard 3, one a row, as generation 7 weighed it
    generations/readers/<name>.jsonl            what a reader took, which is its lease (see `readers`)
    generations/swept.json                      generations before this one may have lost parts
    current.json                                the newest generation; replaced last

A shard that was not weighed anew is named with the part of an older generation, never copied. Generation 0 is uniform: no
shard has a part, so a training can begin before anything was weighed. One process publishes and sweeps, under the run's
lock; any number of others read. They need no lock: `sweep` first says which generations it will not keep whole and then
looks for leases; a reader first takes its lease and then looks what `sweep` said. Whichever comes first, one of the two
sees the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import ConfigError, IntegrityError
from curate.manifest.commits import PartRecord, part_problems
from curate.manifest.events import read as read_lines
from curate.storage import atomic, records, tables
from curate.storage.fingerprint import canonical, fingerprint, sha256_file
from curate.storage.paths import RunPaths

DAY = 86400.0
"""Seconds after which the lease of a reader that did not go on is void."""


@dataclass(frozen=True)
class WeighedShard:
    """Where the weights of one shard are, and what they add up to."""

    index: int
    rows: int
    generation: int
    """The one in which this shard was weighed."""
    part: PartRecord | None
    """Columns: weight float32, null where the row was set aside; where there are any, token_weight list<float16> and
    excess float32. None: every row weighs 1."""
    sum: float
    """Of the weights."""
    valid: int
    """Rows that were not set aside."""
    kept: int
    """Rows of positive weight."""


@dataclass(frozen=True)
class Generation:
    """One committed set of weights of the whole pool."""

    number: int
    shards: tuple[WeighedShard, ...]
    source: dict[str, Any] = field(default_factory=dict)
    """What it was weighed with: step and sha256 of the checkpoint, how many generations it is stale."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Anything else. `cut: {keep, weight}` says the smallest weight of the pool among the heaviest fraction `keep`."""

    @property
    def previous(self) -> int | None:
        """The one before; None for the first."""
        return self.number - 1 if self.number else None

    @property
    def mean(self) -> float:
        """Mean weight of the rows that were not set aside: readers divide by it, so that they see a mean of 1."""
        return math.fsum(shard.sum for shard in self.shards) / max(1, sum(shard.valid for shard in self.shards))


def uniform(rows: Sequence[int]) -> Generation:
    """Generation 0 of a pool whose shards have so many rows."""
    return Generation(0, tuple(WeighedShard(index, n, 0, None, float(n), n, n) for index, n in enumerate(rows)))


def newest(root: Path) -> int | None:
    """Number of the newest generation, or None before the first. Raises IntegrityError."""
    found = _pointer(root)
    return None if found is None else found[0]


def current(root: Path) -> Generation | None:
    """The newest generation, or None before the first. Raises IntegrityError."""
    found = _pointer(root)
    if found is None:
        return None
    number, sha256 = found
    generation, path = load(root, number), RunPaths(root).generation(number)
    if sha256_file(path) != sha256:
        raise _damaged(path, "other bytes than current.json names")
    return generation


def load(root: Path, number: int) -> Generation:
    """A generation by its number. Raises IntegrityError if it is missing or was changed."""
    path = RunPaths(root).generation(number)
    try:
        content = records.parse(path.read_bytes())
        stated = content.pop("self")
        generation = _decoded(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, f"no generation ({error})") from error
    if fingerprint(content) != stated or generation.number != number:
        raise _damaged(path, "bytes that do not match their own hash")
    return generation


def publish(root: Path, generation: Generation) -> None:
    """Commit a generation whose parts are durable: its file first, then the pointer.

    A generation that was written but never pointed to is written anew.

    Raises:
        IntegrityError: it is not the one after the newest, its shards are not the pool's, a part is missing or short,
            or no row weighs anything. Nothing was written.
        ResourceError: it cannot be written.
    """
    paths, before = RunPaths(root), current(root)
    if wrong := _contradiction(paths, generation, before):
        found, expected = wrong
        raise IntegrityError(
            f"generation {generation.number}", found, expected, "Please report this as a bug; nothing was committed."
        )
    file = atomic.write_bytes(paths.generation(generation.number), _encoded(generation))
    atomic.write_bytes(paths.current, canonical({"generation": generation.number, "sha256": file.sha256}) + b"\n")


def read(root: Path, shard: WeighedShard) -> pa.Table | None:
    """The weights of a shard, or None where every row weighs 1. Raises IntegrityError if the part is not what was published."""
    if shard.part is None:
        return None
    if lines := part_problems(root, shard.part, f"generation {shard.generation}"):
        fix = "A reader that slept longer than its lease begins anew with fresh=True; otherwise run `curate verify`."
        raise IntegrityError(f"weights of shard {shard.index}", "; ".join(lines), "the part as it was published", fix)
    return tables.read_arrow(root / shard.part.path)


def whole_from(root: Path) -> int:
    """The first generation that is kept whole: a lease on an earlier one may have come too late. Raises IntegrityError."""
    path = RunPaths(root).swept
    try:
        return int(records.parse(path.read_bytes())["before"]) if path.is_file() else 0
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"unreadable content ({error})") from error


def leases(root: Path, since: float = 0.0) -> set[tuple[int, int | None]]:
    """Generation and shard of everything that a reader may read again; shard None means all of them.

    Args:
        root: run directory.
        since: readers whose file was not touched since then, in seconds of the epoch, count as dead.
    """
    files = sorted(RunPaths(root).readers.glob("*.jsonl"))
    taken = (line for file in files if file.stat().st_mtime >= since for line in taken_by(file)[1].values())
    return {(line["generation"], line["shard"]) for line in taken}


def taken_by(log: Path) -> tuple[dict[str, Any] | None, dict[tuple[int, int], dict[str, Any]]]:
    """How a reader reads, and what it took by pass and place, the last line about a place. Earlier readings do not count."""
    settings, taken = None, {}
    for line, _ in read_lines(log):
        if "reader" in line:
            settings, taken = line["reader"], {}
        else:
            taken[line["pass"], line["place"]] = line
    return settings, taken


def sweep(root: Path, keep: int, *, lease_seconds: float = DAY) -> list[Path]:
    """Remove parts that neither the newest generations nor a lease names; the generations' own files stay as history.

    Ages are differences between times of files of one file system: no clock of this host is asked.

    Args:
        root: run directory; the caller holds its lock.
        keep: how many of the newest generations are kept whole, at least 2.
        lease_seconds: a reader that did not go on for so long is dead, and what it took is not kept for it.

    Returns:
        The parts removed.

    Raises:
        ConfigError: `keep` is less than 2.
    """
    if keep < 2:
        raise ConfigError("keep", str(keep), "2 generations or more", "A reader may be about to read the one before.")
    last, paths = newest(root), RunPaths(root)
    if last is None:
        return []
    before = max(whole_from(root), last - keep + 1)
    atomic.write_bytes(paths.swept, canonical({"before": before}) + b"\n")
    since = paths.swept.stat().st_mtime - lease_seconds
    needed = {(number, None) for number in range(before, last + 1)} | leases(root, since)
    kept = {root / part.path for part in _parts(root, needed)}
    old = (path for path in sorted(paths.generation_parts.glob("*/*.arrow")) if int(path.parent.name) <= last)
    gone = [path for path in old if path not in kept]
    atomic.remove_all(gone)
    return gone


def problems(root: Path) -> list[str]:
    """Re-hash every generation and every part that is still there: one line for whatever is not as published."""
    try:
        newest_whole, last = whole_from(root), current(root)
    except IntegrityError as error:
        return [f"{_relative(root, error.where)}: {error.found}"]
    lines, seen = [], set()
    for number in range(last.number, -1, -1) if last else ():  # a part is asked for if any whole generation names it
        try:
            shards = load(root, number).shards
        except IntegrityError as error:
            lines.append(f"{_relative(root, error.where)}: {error.found}")
            continue
        for part in (shard.part for shard in shards if shard.part and shard.part.path not in seen):
            seen.add(part.path)
            if number >= newest_whole or (root / part.path).exists():
                lines += part_problems(root, part, f"generation {number}")
    return lines


def _parts(root: Path, needed: set[tuple[int, int | None]]) -> Iterator[PartRecord]:
    """Parts of shards of generations; of all shards where the shard is None."""
    wanted: dict[int, set[int | None]] = {}
    for number, shard in needed:
        wanted.setdefault(number, set()).add(shard)
    for number, chosen in sorted(wanted.items()):
        for shard in load(root, number).shards:
            if shard.part and chosen & {None, shard.index}:
                yield shard.part


def _contradiction(paths: RunPaths, generation: Generation, before: Generation | None) -> tuple[str, str] | None:
    """What is wrong with a generation and what would be right, or None."""
    expected = before.number + 1 if before else 0
    if generation.number != expected:
        return f"number {generation.number}", f"number {expected}: no generation is left out"
    rows = [(shard.index, shard.rows) for shard in generation.shards]
    if rows != [(index, shard.rows) for index, shard in enumerate((before or generation).shards)]:
        return "other shards than in the one before, or in another order", "every shard of the pool, in order"
    if not (math.isfinite(generation.mean) and generation.mean > 0):
        return f"a mean weight of {generation.mean}", "a positive mean"
    for part in (shard.part for shard in generation.shards if shard.part):
        path = paths.root / part.path
        if not path.is_file() or path.stat().st_size != part.size:
            return f"no part {part.path} of {part.size} bytes", "parts that are durable before they are named"
    return None


def _encoded(generation: Generation) -> bytes:
    content = asdict(generation)
    content = {"generation": content.pop("number"), **content, "shards": list(content["shards"])}
    content |= {"previous": generation.previous, "mean": generation.mean}
    return canonical({**content, "self": fingerprint(content)}) + b"\n"


def _decoded(content: dict[str, Any]) -> Generation:
    shards = tuple(
        WeighedShard(**{**shard, "part": PartRecord(**shard["part"]) if shard["part"] else None})
        for shard in content["shards"]
    )
    return Generation(content["generation"], shards, content["source"], content["facts"])


def _pointer(root: Path) -> tuple[int, str] | None:
    path = RunPaths(root).current
    try:
        content = records.parse(path.read_bytes())
        return int(content["generation"]), str(content["sha256"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"unreadable content ({error})") from error


def _relative(root: Path, where: str) -> str:
    return str(Path(where).relative_to(root)) if Path(where).is_relative_to(root) else where


def _damaged(path: Path, found: str) -> IntegrityError:
    fix = "Put the file back from a copy; if there is none, begin another run."
    return IntegrityError(str(path), found, "what was published", fix)

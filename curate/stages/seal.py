"""seal: check that every row is accounted for, then write the card and, last of all, the manifest."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.stages.stage import Scope, Stage, unknown

if TYPE_CHECKING:
    from curate.manifest.commits import Commit
    from curate.runs.job import Job
    from curate.stages.identity import Inputs
    from curate.storage.outputs import Outcome


def work(job: Job, _: int) -> Outcome:
    """Manifest, card and histogram of the dataset."""
    return sealed(job, {})


def sealed(job: Job, more: dict[str, Any]) -> Outcome:
    """The same, with facts that only some kinds of run have. Raises IntegrityError if a row is missing."""
    from curate.manifest import commits, dataset
    from curate.sinks import card, histogram, tally
    from curate.storage.fingerprint import fingerprint
    from curate.storage.outputs import Outcome

    done = [commits.require(job.paths, "render", index) for index in range(job.record.shards)]
    facts = _facts(job, done) | more
    counted = tally.total(record.facts["tally"] for record in done)
    facts["sources"], contents = tally.listed(counted["sources"]), {}
    if facts["weight_column"] is not None:
        facts["histogram"] = job.paths.histogram.name
        contents[job.paths.histogram] = histogram.draw(counted["bins"], counted["zeros"]).encode()
    written = sorted([part.path, part.sha256] for record in done for part in record.parts)
    facts["content_sha256"] = fingerprint(written)
    stated: Any = {name: facts[name] for name in card.Facts.__annotations__ if facts.get(name) is not None}
    contents[job.paths.card] = card.card(stated).encode()
    parts = sorted((asdict(part) for record in done for part in record.parts), key=lambda part: part["path"])
    parts += [_described(job, path, data) for path, data in sorted(contents.items())]
    absent = () if job.paths.histogram in contents else (job.paths.histogram,)
    return Outcome({**contents, job.paths.manifest: dataset.encode({**facts, "parts": parts})}, absent)


def _facts(job: Job, done: list[Commit]) -> dict[str, Any]:
    """What is true of the dataset as a whole. Raises IntegrityError if a row is missing."""
    from curate.errors import IntegrityError
    from curate.manifest import commits
    from curate.runs import reading
    from curate.stages import facts

    rows_in, rows_out, rows_dropped = commits.total(done)
    pool = sum(shard.rows for shard in job.parts)
    if rows_in != pool:
        found, expected = f"{rows_in} rows rendered", f"{pool} rows of the pool"
        raise IntegrityError("seal", found, expected, "Run `curate verify` on this directory.")
    read = reading.of_run(job.paths, job.record.stages, len(job.shards)).facts(job.record.config["model"])
    counts = read | {"rows_in": rows_in, "rows_kept": rows_out, "rows_dropped": rows_dropped}
    changes = {"environment_changes": job.record.environment_changes}
    return facts.facts(job) | counts | changes | {"rows_out": sum(record.facts["written"] for record in done)}


def _described(job: Job, path: Path, data: bytes) -> dict[str, Any]:
    """A file that seal writes, as the manifest lists it."""
    own = str(path.relative_to(job.paths.root))
    return {"path": own, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def identity(inputs: Inputs) -> list[Any]:
    """Every setting: the card states them."""
    from curate.manifest import run

    return [run.config_hash(inputs.settings)]


STAGE = Stage("seal", Scope.ONCE, ("render",), work, identity=identity, extent=unknown)

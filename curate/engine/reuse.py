"""What a new run takes over from an earlier one: parts whose content keys are equal, by hard links.

The earlier run is read and never changed. Every part is hashed before it is linked, and what is not as its commit record says
is computed again. The new run's records are its own, so that shards may have other numbers there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from curate import stages
from curate.engine import fingerprints
from curate.errors import ConfigError, IntegrityError
from curate.features.settings import KINDS
from curate.manifest import commits
from curate.manifest import run as runs
from curate.manifest.commits import Commit
from curate.manifest.events import Events
from curate.manifest.run import RunRecord
from curate.runs.job import Job, open_job
from curate.stages import identity
from curate.storage import atomic
from curate.storage.atomic import Part
from curate.storage.paths import RunPaths


@dataclass(frozen=True)
class Reuse:
    """An earlier run, and what a new run keeps of it beside parts of equal key."""

    root: Path
    """Its run directory."""
    keeps: frozenset[str] = frozenset()
    """`proxy`: its proxy, also where the pool that this was warmed up on is another one now. `pool`, `target`: its list of
    input files, where that section stays the same: files added since are ignored."""

    @cached_property
    def record(self) -> RunRecord:
        """Its run.json. Raises ConfigError if there is none."""
        return runs.load(self.root)

    def refuse(self, run_dir: Path) -> None:
        """Raise ConfigError if the new run would lie where the earlier one does, or if that is no run."""
        if run_dir.resolve() == self.root.resolve():
            raise ConfigError("--run-dir", str(run_dir), "another directory than the run's own", "Choose another name.")
        _ = self.record

    def kept_proxy(self, now: RunRecord) -> dict[str, Any] | None:
        """Its proxy as run.json names it, if the new run's would differ from it only in the pool of the warm-up."""
        made = commits.load(RunPaths(self.root), "proxy", 0)
        if "proxy" not in self.keeps or made is None or made.fingerprint != self.record.stages.get("proxy"):
            return None
        if now.stages.get("proxy") in (None, made.fingerprint) or _recipe(now) != _recipe(self.record):
            return None
        return {"fingerprint": made.fingerprint, "sha256": _hashes(made)}


class Links:
    """Links what an earlier run has of a new one, stage by stage.

    Args:
        reuse: the earlier run.
        paths: the new run, its run.json written.
        note: hears one line about what was linked, or why nothing was.
    """

    def __init__(self, reuse: Reuse, paths: RunPaths, note: Callable[[str], None]) -> None:
        self._root, self._record = reuse.root, reuse.record
        self._paths, self._note, self._events = paths, note, Events(paths.events)

    def take(self, stage: str, waiting: Sequence[int]) -> list[int]:
        """Link the tasks of a stage that the earlier run has done; return those left to do."""
        job = open_job(str(self._paths.root))
        if (
            not waiting or not stages.table(job.record.config)[stage].reusable
        ):  # an output is cheap and named after its run
            return list(waiting)
        done = self._done(stage)
        same = {
            index: done[key] for index in waiting if done and (key := fingerprints.expected(job, stage, index)) in done
        }
        if same and stage != "prepare":  # which computes nothing that an environment could change
            self._keep_environment(job.record)
        left = sorted(set(waiting) - {index for index, record in same.items() if self._link(job, record, index)})
        self._tell(job, stage, len(waiting), left)
        return left

    def _done(self, stage: str) -> dict[str, Commit]:
        """What the earlier run committed of a stage, by key."""
        old = RunPaths(self._root)
        found = [commits.load(old, stage, index) for index in commits.stages(old).get(stage, [])]
        return {fingerprints.of(record): record for record in found if record is not None}

    def _link(self, job: Job, record: Commit, index: int) -> bool:
        wrong = commits.problems(RunPaths(self._root), record) or self._foreign(job, record)
        for line in wrong:
            self._note(f"{self._root}: {line}; not linked")
        if wrong:
            return False
        parts = [self._linked(part, record.index, index) for part in record.parts]
        own = replace(record, index=index, fingerprint=job.record.stages[record.stage], parts=())
        commits.commit(self._paths, own, parts)
        self._events.write("linked", stage=record.stage, index=index)
        return True

    def _linked(self, part: commits.PartRecord, was: int, index: int) -> Part:
        path = PurePosixPath(part.path)
        name = path.name.replace(f"-{was:05d}.", f"-{index:05d}.")
        place = self._paths.root / path.with_name(name)
        atomic.remove(place)  # no record names it: a task that was killed left it
        atomic.link(self._root / path, place)
        return Part(place, part.size, part.sha256)

    def _foreign(self, job: Job, record: Commit) -> list[str]:
        """Why parts that are whole are not the ones meant: a record is data, and may name any path."""
        paths = [PurePosixPath(part.path) for part in record.parts]
        outside = [
            f"{path} is not a path inside a run directory" for path in paths if path.is_absolute() or ".." in path.parts
        ]
        kept = job.record.kept_proxy if record.stage == "proxy" else None
        return outside or (
            ["a different proxy from the one this run began with"] if kept and kept["sha256"] != _hashes(record) else []
        )

    def _keep_environment(self, now: RunRecord) -> None:
        """What the earlier run computed under other versions, this one states as its own changes."""
        changed = [*self._record.environment_changes, *runs.compare_environment(self._record, now.environment)]
        new = [line for line in dict.fromkeys(changed) if line not in now.environment_changes]
        if new:
            runs.save(self._paths, replace(now, environment_changes=[*now.environment_changes, *new]))
            self._note(
                f"{self._root} ran in another environment, so results may differ in the last bits: {'; '.join(new)}"
            )

    def _tell(self, job: Job, stage: str, of: int, left: list[int]) -> None:
        if stage == "proxy" and not left and job.record.kept_proxy:
            self._note(f"uses the proxy of {self._root}, warmed up on the pool there and not on this one")
        parts = stages.table(job.record.config)[stage].parts
        if parts and len(left) < of:
            self._note(f"linked {of - len(left)} of {of} {parts} from {self._root}; {len(left)} to compute")
        elif stage == "featurize":
            why = f"differs in {difference(self._record, job.record)}" if self._done(stage) else "has none"
            self._note(f"linked no features from {self._root}, which {why}")


def difference(old: RunRecord, now: RunRecord) -> str:
    """What two runs differ in, of all that the features of a shard depend on."""
    if old.curate != now.curate:
        return f"the version of curate ({old.curate} there, {now.curate} here)"
    read = ("features", "pool.text", "pool.prompt", "pool.completion", "pool.messages", "pool.tools")
    read += ("pool.chat_template_kwargs", "pool.loss_on", "pool.max_chars")
    found = [key for key in runs.differing(old.config, now.config) if key.startswith(read)]
    if KINDS[now.config["features"]["name"]].needs_model:
        found += _proxy_difference(old, now, said=bool(found))
    return ", ".join(found) or "the texts of every shard"


def _proxy_difference(old: RunRecord, now: RunRecord, *, said: bool) -> list[str]:
    """What makes two proxies differ; the pool of their warm-up only where nothing else is said to differ."""
    different = [key.split(".") for key in runs.differing(old.config, now.config)]
    found = [".".join(key) for key in different if key[0] == "model" and key[-1] not in identity.PLACES]
    (old_model, *_, old_seed), (model, *_, seed) = _recipe(old), _recipe(now)
    found += ["the files of the model"] if old_model != model else []
    found += ["seed"] if old_seed != seed else []
    other = not (said or found) and old.stages.get("proxy") != now.stages.get("proxy")
    return ["the pool that the proxy is warmed up on"] if other else found


def lost_proxy(paths: RunPaths) -> IntegrityError:
    """The error of a run whose proxy is another run's and is not there any more: to train one anew would change it."""
    return IntegrityError(
        str(paths.proxy),
        "no complete copy of the proxy that this run took from another run",
        "the files that run.json names under kept_proxy",
        "Run the `curate weigh` command of this run again, whose RUN has them, or start a new run.",
    )


def _recipe(record: RunRecord) -> list[Any]:
    if record.model is None or record.config["model"] is None:
        return [None, None]
    return identity.recipe(record.config["model"], record.model["fingerprint"], record.config["seed"])


def _hashes(record: Commit) -> dict[str, str]:
    return {part.path: part.sha256 for part in record.parts}

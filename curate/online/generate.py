"""Online mode: the flow once per generation, against a twin of the model while it trains. Read `online` first.

A generation is planned (which checkpoint, which shards), its reference is trained, the shards that are due are weighed by the
excess loss, then it is published: readers see the one before until the pointer moves. What is planned or committed is not
done again; a kill at any moment costs the task that was running.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from curate.config import Pipeline
from curate.config.online import OnlineConfig
from curate.engine.flow import Crew, Flow, Workers
from curate.errors import ConfigError, IntegrityError, ModelError
from curate.manifest import commits, dataset, generations, plans
from curate.manifest.events import Events
from curate.manifest.generations import Generation, WeighedShard
from curate.manifest.plans import Plan
from curate.models import checkpoints
from curate.online.schedule import Age, due
from curate.reports.progress import Observer, Silent
from curate.storage import atomic, lock
from curate.storage.paths import RunPaths

RENDERED = ("weigh", "select", "render", "seal")
"""Stages that make the dataset from the last generation."""


def online(
    pipeline: Pipeline,
    run_dir: Path,
    *,
    observer: Observer | None = None,
    allow_environment_change: bool = False,
    workers: Workers | None = None,
) -> Path:
    """Make generations of weights until there are as many as asked for; then the dataset, from the last.

    Args:
        pipeline: with an `online` section.
        run_dir: where everything lies; the same directory again goes on, and makes more if more are asked for.
        observer: hears about stages and rows.
        allow_environment_change: go on under other library versions.
        workers: gives an executor that is there already; by default one is started.

    Returns:
        The run directory.

    Raises:
        CurateError: with the exit code of its kind; what was published stays, and the same call goes on.
    """
    settings = pipeline.online
    if settings is None:
        raise ConfigError("online", "no such section", "the settings of online mode", "Add `online: {}` to the file.")
    paths, observer = RunPaths(run_dir), observer or Silent()
    with (
        lock.exclusive(paths.lock),
        Crew(pipeline, observer) as crew,
        Flow(paths, observer, workers or crew.get) as flow,
    ):
        flow.open(pipeline, allow_environment_change, None)
        for stage in ("prepare", "tokenize", "tokenize_target"):
            flow.map(stage)
        flow.map("proxy")
        making = Generations(paths, settings, flow.shard_rows, observer)
        for plan in making.plans():
            try:
                flow.some("twin", [plan.generation])
            except ModelError as error:
                making.refuse(plan, error)
                continue
            began = time.monotonic()
            flow.some("rescore", making.tasks(plan), seconds=settings.budget.seconds)
            making.publish(plan, seconds=time.monotonic() - began)
        flow.map("weigh")
        flow.map("select")
        flow.map("render")
        flow.map("seal")
        flow.report()
    return run_dir


@dataclass
class Generations:
    """Plans generations and publishes them; everything it knows is on disk.

    Attributes:
        paths: the run.
        settings: the `online` section.
        rows: rows of every shard.
        observer: hears what is unusual.
    """

    paths: RunPaths
    settings: OnlineConfig
    rows: list[int]
    observer: Observer
    _told: set[str] = field(default_factory=set)

    def plans(self) -> Iterator[Plan]:
        """Each generation that is to be made; the next is asked for when the last is published."""
        if generations.newest(self.paths.root) is None:
            generations.publish(self.paths.root, generations.uniform(self.rows))
        self._tidy()
        while (before := self._current).number < self.settings.generations:
            plan = plans.load(self.paths, before.number + 1) or self._planned(before)
            if plan is None:
                return
            self._withdraw()
            yield plan

    def tasks(self, plan: Plan) -> list[int]:
        """Indices of the tasks that weigh its shards."""
        return [plan.generation * len(self.rows) + shard for shard in plan.shards]

    def refuse(self, plan: Plan, error: ModelError) -> None:
        """Make the generation from the last good proxy instead. Raises the error if the checkpoint is not what is wrong."""
        good = self._current.source
        if not plan.files or good.get("checkpoint") is None:  # of the very first checkpoint a user should hear at once
            atomic.remove(self.paths.plan(plan.generation))
            raise error
        self.observer.note(f"{plan.checkpoint} was skipped: {error.found}")
        refused = {**plan.refused, plan.checkpoint or "": error.found}
        stale = good["stale"] + 1
        known = replace(plan, step=good["step"], checkpoint=good["checkpoint"], files={}, stale=stale, refused=refused)
        plans.save(self.paths, known)

    def publish(self, plan: Plan, *, seconds: float) -> None:
        """Commit the generation: the shards that were weighed anew, the others as they were."""
        before, tokens = self._current, self._tokens()
        shards, facts = [*before.shards], dict[str, Any](commits.require(self.paths, "twin", plan.generation).facts)
        weighed = 0
        for shard, task in zip(plan.shards, self.tasks(plan), strict=True):
            record = commits.load(self.paths, "rescore", task)
            if record is None:
                continue
            own = record.facts
            shards[shard] = WeighedShard(
                shard, record.rows_in, plan.generation, record.parts[0], own["sum"], record.rows_out, own["kept"]
            )
            tokens[shard], weighed = own["tokens"], weighed + 1
        facts |= {"tokens": tokens, "due": len(plan.shards), "weighed": weighed}
        source = {**plan.source, "step": facts.pop("step", plan.step)}
        generations.publish(self.paths.root, Generation(plan.generation, tuple(shards), source, facts))
        rows = sum(shard.rows for shard in shards if shard.generation == plan.generation)
        written = {"generation": plan.generation, "step": source["step"], "stale": plan.stale, "rows": rows}
        Events(self.paths.events).write("generation", **written, seconds=round(seconds, 3))
        self._tidy()

    @property
    def _current(self) -> Generation:
        found = generations.current(self.paths.root)
        if found is None:
            fix = "Run the same command again."
            raise IntegrityError(str(self.paths.current), "no such file", "the newest generation", fix)
        return found

    def _tokens(self) -> list[int | None]:
        """Tokens of every shard as they were counted last."""
        return self._current.facts.get("tokens") or [None] * len(self.rows)

    def _ages(self) -> list[Age]:
        pairs = zip(self._current.shards, self._tokens(), strict=True)
        return [Age(shard.index, shard.generation, shard.rows, tokens) for shard, tokens in pairs]

    def _planned(self, before: Generation) -> Plan | None:
        """Write the next plan; None once there was nothing new for too long."""
        number, step = before.number + 1, before.source.get("step", 0)
        shards = tuple(due(self._ages(), self.settings.budget))
        plan = Plan(number, step, before.source.get("checkpoint"), shards=shards)
        if self.settings.follow is not None:
            found = self._followed(plan, before.source.get("stale", 0))
            if found is None:
                return None
            plan = found
        plans.save(self.paths, plan)
        return plan

    def _followed(self, plan: Plan, stale: int) -> Plan | None:
        """The plan with the newest checkpoint that can be used, or with the last good one if none comes."""
        directory, refused, waiting = Path(self.settings.follow or ""), dict[str, str](), False
        first = plan.generation == 1  # made at once, from the proxy as it is: the trainer begins with something
        until = time.monotonic() + (0 if first else self.settings.patience)
        while True:
            found = self._newer(directory, plan, refused)
            if found is not None:
                return replace(found, refused=refused)
            if time.monotonic() >= until:
                break
            if not waiting:
                absent = "" if directory.is_dir() else ", which does not exist yet"
                self.observer.note(f"waiting for a checkpoint after step {plan.step} in {directory}{absent}")
            waiting = True
            time.sleep(self.settings.poll)
        if first:
            return replace(plan, refused=refused)
        if stale >= self.settings.max_stale:
            what = f"no new checkpoint in {directory} for {stale} generations"
            self.observer.note(f"{what}: ended at generation {plan.generation - 1}")
            return None
        return replace(plan, stale=stale + 1, refused=refused)

    def _newer(self, directory: Path, plan: Plan, refused: dict[str, str]) -> Plan | None:
        found, unusable = checkpoints.newer(directory, plan.step)
        refused |= dict(line.split(": ", 1) for line in unusable)
        for checkpoint in found:
            try:
                parts = checkpoints.copy(checkpoint, self.paths.staged(plan.generation))
            except ModelError as error:
                refused[checkpoint.path.name] = error.found
                continue
            files = {part.path.name: part.sha256 for part in parts}
            return replace(plan, step=checkpoint.step, checkpoint=checkpoint.path.name, files=files)
        for name, why in refused.items():
            if f"{name}: {why}" not in self._told:
                self._told.add(f"{name}: {why}")
                self.observer.note(f"{name} is not usable yet: {why}")
        return None

    def _withdraw(self) -> None:
        """The dataset of an earlier last generation is not this run's any more."""
        dataset.withdraw(self.paths)
        for stage in RENDERED:
            for index in commits.stages(self.paths).get(stage, []):
                atomic.remove(self.paths.commit(stage, index))

    def _tidy(self) -> None:
        """Drop what only made generations that are published, and parts that nobody needs."""
        last = self._current.number
        for index in commits.stages(self.paths).get("rescore", []):
            if index // len(self.rows) <= last:
                atomic.remove(self.paths.commit("rescore", index))
        atomic.remove_all(sorted(self.paths.staged(last).glob("*")))
        for number in commits.stages(self.paths).get("twin", []):
            if number < last:
                atomic.remove(self.paths.commit("twin", number))
                atomic.remove_all([path for path in sorted(self.paths.twin(number).rglob("*")) if path.is_file()])
        generations.sweep(self.paths.root, self.settings.keep)

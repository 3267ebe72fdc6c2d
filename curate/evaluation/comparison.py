"""The trainings behind `curate evaluate` and `curate arena`: what is compared, and the tasks that any worker can run.

A comparison is a directory: contest.json says what is compared, and trained/ holds one file a training, named after all that it
depends on. So a comparison that was killed, or that gets another arm, trains what is missing and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from curate.config import EvaluationConfig
from curate.config.uses import OF_A_RUN
from curate.errors import IntegrityError
from curate.evaluation.arms import Arm
from curate.manifest import commits
from curate.runs.job import Job, open_job
from curate.runs.weights import written_weights
from curate.storage import atomic, records
from curate.storage.fingerprint import canonical, fingerprint


@dataclass(frozen=True)
class Comparison:
    """What is compared on one pool.

    Attributes:
        root: directory of the comparison.
        run: directory of the run whose pool, targets and rows set aside all arms share.
        evaluation: the settings; `model` is the model to train, as it is before any warm-up.
        model: that model as run.json names models.
        data: the held-out rows as scanned.
        environment: what a training depends on beside all this: versions, kind of machine and device, threads.
        arms: what is compared.
    """

    root: Path
    run: str
    evaluation: EvaluationConfig
    model: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, str]
    arms: tuple[Arm, ...]

    @property
    def trainings(self) -> list[tuple[Arm, int]]:
        """Every training, by its index as a task."""
        return [(arm, seed) for arm in self.arms for seed in range(self.evaluation.seeds)]

    @cached_property
    def job(self) -> Job:
        """The run as the judge reads it: with the model that is trained here."""
        run = open_job(self.run)
        pipeline = run.pipeline.model_copy(update={"model": self.evaluation.model})
        return replace(run, pipeline=pipeline, record=replace(run.record, model=self.model))

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights of the whole pool as they are written, float64 with NaN where a row was set aside, by run directory."""
        runs = {self.run, *(arm.run for arm in self.arms if arm.run is not None)}
        return {run: np.concatenate([part.weights for part in written_weights(open_job(run))]) for run in sorted(runs)}

    def token_level(self, arm: Arm) -> bool:
        """Whether an arm trains on tokens that count each for itself."""
        return arm.use == "weighted" and open_job(arm.run or self.run).pipeline.token_level

    def start(self, seed: int) -> Path:
        """Where the model lies that all arms of a seed go on from, if there is a warm-up."""
        settings = self.evaluation.model_dump(mode="json", include={"model", "warmup"})
        set_aside = np.isnan(self.weights[self.run])
        key = fingerprint(
            settings, self.environment, self.data["fingerprint"], self.model["fingerprint"], self.job.source.fingerprint,
            hashlib.sha256(set_aside.tobytes()).hexdigest(), seed,
        )  # fmt: skip
        return self.root / "started" / f"{key[:24]}.safetensors"

    def path(self, arm: Arm, seed: int) -> Path:
        """Where the result of a training lies."""
        settings = self.evaluation.model_dump(mode="json", exclude={"data": {"path"}, "seeds": True, "against": True})
        used = self._weights_used(arm)
        key = fingerprint(
            settings, self.environment, self.data["fingerprint"], self.model["fingerprint"], self.job.source.fingerprint,
            [target.fingerprint for target in self.job.targets] if arm.use == "mixing" else [],
            arm.use, arm.draw, hashlib.sha256(used.tobytes()).hexdigest(), seed, *self._token_weights_used(arm),
        )  # fmt: skip
        return self.root / "trained" / f"{key[:24]}.json"

    def _token_weights_used(self, arm: Arm) -> list[str]:
        if not self.token_level(arm):
            return []
        job = open_job(arm.run or self.run)
        return [commits.require(job.paths, "weigh", index).parts[0].sha256 for index in range(job.record.shards)]

    def _weights_used(self, arm: Arm) -> np.ndarray:
        weights = self.weights[arm.run or self.run]
        return weights if arm.use in OF_A_RUN else np.isnan(weights)


def write(comparison: Comparison) -> None:
    """Keep what is compared, for the workers and for later."""
    content = {
        "run": comparison.run,
        "evaluation": comparison.evaluation.model_dump(mode="json"),
        "model": comparison.model,
        "data": comparison.data,
        "environment": comparison.environment,
        "arms": [asdict(arm) for arm in comparison.arms],
    }
    atomic.write_bytes(comparison.root / "contest.json", canonical(content))


def open_comparison(root: str) -> Comparison:
    """The comparison of a directory; parsed once a worker as long as its file stays the same."""
    return _open(root, (Path(root) / "contest.json").stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _open(root: str, _changed: int) -> Comparison:
    content = records.parse((Path(root) / "contest.json").read_bytes())
    return Comparison(
        Path(root),
        content["run"],
        EvaluationConfig.model_validate(content["evaluation"]),
        content["model"],
        content["data"],
        content["environment"],
        tuple(Arm(**arm) for arm in content["arms"]),
    )


@dataclass(frozen=True)
class Result:
    """What one training gave.

    Attributes:
        seed: of initial weights, order and draws.
        tokens: tokens seen at each measurement.
        losses: held-out loss there, in nats per token.
        parameters: size of the model.
        effective_sample_size: rows that the training amounted to.
        duplicate_mass: share of it that went to rows whose text an earlier row has.
        leaked: rows of the pool that have a held-out text, and so train nobody.
    """

    seed: int
    tokens: tuple[int, ...]
    losses: tuple[float, ...]
    parameters: int
    effective_sample_size: float
    duplicate_mass: float
    leaked: int


def result(comparison: Comparison, arm: Arm, seed: int) -> Result | None:
    """The result of a training, or None if it is not there. Raises IntegrityError if it cannot be read."""
    path = comparison.path(arm, seed)
    if not path.exists():
        return None
    try:
        found = records.parse(path.read_bytes())
        return Result(
            seed,
            tuple(found["tokens"]),
            tuple(found["losses"]),
            found["parameters"],
            found["effective_sample_size"],
            found["duplicate_mass"],
            found["leaked"],
        )
    except (ValueError, KeyError, TypeError) as error:
        fix = "Remove the file: its training is repeated."
        raise IntegrityError(str(path), f"unreadable content ({error})", "the result of a training", fix) from error


def required(comparison: Comparison, arm: Arm, seed: int) -> Result:
    """The result of a training that was done. Raises IntegrityError if it is gone."""
    found = result(comparison, arm, seed)
    if found is None:
        expected = f"the training of {arm.name} with seed {seed}"
        raise IntegrityError(str(comparison.path(arm, seed)), "no such file", expected, "Run the same command again.")
    return found

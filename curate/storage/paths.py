"""Where everything of a run lies. Every name is ours, never derived from data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The files of one run directory."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def events(self) -> Path:
        return self.root / "logs" / "events.jsonl"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def proxy(self) -> Path:
        return self.root / "state" / "proxy"

    @property
    def optimizer(self) -> Path:
        return self.root / "state" / "optimizer.safetensors"

    def checkpoint(self, index: int) -> Path:
        """An earlier state of the proxy, laid out as the state directory is."""
        return self.root / "state" / "checkpoints" / f"{index:02d}"

    @property
    def state(self) -> Path:
        return self.root / "state" / "weights.arrow"

    @property
    def loop(self) -> Path:
        """State of a training that is not finished."""
        return self.root / "state" / "loop.safetensors"

    @property
    def pair(self) -> Path:
        """What was trained of proxy and reference, where a method weighs by both."""
        return self.root / "state" / "twin"

    def refined(self, turn: int) -> Path:
        """Responses that were generated for a pass over the pool."""
        return self.root / "state" / "refined" / f"pass-{turn:05d}.arrow"

    def twin(self, generation: int) -> Path:
        """What a generation is made with: its plan, the proxy and the reference."""
        return self.root / "state" / "twin" / f"{generation:05d}"

    def plan(self, generation: int) -> Path:
        return self.twin(generation) / "plan.json"

    def staged(self, generation: int) -> Path:
        """Weights of another trainer's checkpoint, copied."""
        return self.twin(generation) / "checkpoint"

    def half(self, generation: int, name: str) -> Path:
        """What is trained of a generation's `proxy` or `reference`."""
        return self.twin(generation) / f"{name}.safetensors"

    def training(self, generation: int) -> Path:
        """State of the training at the end of a generation."""
        return self.twin(generation) / "training.safetensors"

    def calibration(self, generation: int) -> Path:
        """What turns excess losses into weights."""
        return self.twin(generation) / "calibration.arrow"

    @property
    def generated(self) -> Path:
        """Generated responses as rows beside the pool's."""
        return self.root / "state" / "generated.parquet"

    @property
    def selection(self) -> Path:
        return self.root / "state" / "selection.json"

    @property
    def current(self) -> Path:
        """Which generation of weights is the newest."""
        return self.root / "current.json"

    @property
    def generations(self) -> Path:
        return self.root / "generations"

    def generation(self, number: int) -> Path:
        return self.generations / f"{number:05d}.json"

    @property
    def generation_parts(self) -> Path:
        return self.generations / "parts"

    def generation_part(self, number: int, shard: int) -> Path:
        """Weights of one shard as a generation weighed it."""
        return self.generation_parts / f"{number:05d}" / f"part-{shard:05d}.arrow"

    @property
    def swept(self) -> Path:
        """Which generations are kept whole."""
        return self.generations / "swept.json"

    @property
    def readers(self) -> Path:
        return self.generations / "readers"

    def reader(self, name: str) -> Path:
        """What one reader took from which generation."""
        return self.readers / f"{name}.jsonl"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def card(self) -> Path:
        return self.dataset / "README.md"

    @property
    def histogram(self) -> Path:
        """The card's picture of the weights."""
        return self.dataset / "weights.svg"

    @property
    def publications(self) -> Path:
        return self.root / "published"

    def publication(self, name: str) -> Path:
        """What was put where on a Hub."""
        return self.publications / f"{name}.json"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    def export(self, name: str) -> Path:
        """The dataset as one trainer reads it."""
        return self.exports / name

    def unfinished_export(self, name: str) -> Path:
        return self.exports / f".{name}.partial"

    def commit(self, stage: str, index: int) -> Path:
        return self.root / "commits" / stage / f"{index:05d}.json"

    def tokens(self, shard: int) -> Path:
        return self.root / "tokens" / f"part-{shard:05d}.arrow"

    def target_tokens(self, place: int) -> Path:
        return self.root / "tokens" / f"target-{place:05d}.arrow"

    def features(self, shard: int) -> Path:
        return self.root / "features" / f"part-{shard:05d}.arrow"

    def target(self, place: int) -> Path:
        return self.root / "features" / f"target-{place:05d}.arrow"

    def weights(self, shard: int) -> Path:
        return self.root / "weights" / f"part-{shard:05d}.arrow"

    def data(self, shard: int, shards: int) -> Path:
        return self.dataset / "data" / f"train-{shard:05d}-of-{shards:05d}.parquet"

    def aside(self, path: Path) -> Path:
        """Where a part with wrong bytes goes: not beside it, since whatever lies in dataset/ is loaded and published."""
        return self.root / "quarantine" / path.relative_to(self.root)

    def dropped(self, shard: int) -> Path:
        return self.root / "dropped" / f"part-{shard:05d}.parquet"

"""The tasks of a comparison: one training each. Runs on workers."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from curate.evaluation import arms
from curate.evaluation.arms import Mixture
from curate.evaluation.comparison import Comparison, open_comparison
from curate.evaluation.judge import judge
from curate.evaluation.statistics import duplicate_mass
from curate.evaluation.token_weights import TokenWeights
from curate.evaluation.training_rows import TrainingRows
from curate.models import device, loading
from curate.models.warmup import warm_up
from curate.runs.job import open_job
from curate.sources import base as sources
from curate.storage import atomic
from curate.storage.fingerprint import canonical


def start(root: str, seed: int) -> None:
    """Train what all arms of a seed go on from: the model as given, on the whole pool."""
    comparison = open_comparison(root)
    job, settings = comparison.job, comparison.evaluation
    path, warmup = comparison.start(seed), settings.warmup
    if path.exists() or warmup is None:
        return
    device.pin(job.pipeline.cluster.threads)
    language_model = loading.load(
        job.model_path, config=job.model_config, seed=seed, tokenizer=job.tokenizer_path, adapter=job.adapter_path
    )
    rows = _rows(root, (Path(root) / "contest.json").stat().st_mtime_ns)
    generator = np.random.default_rng([seed, job.pipeline.seed, 4])
    given = arms.Rows(comparison.weights[comparison.run], rows.clean, rows.pool.targets)
    whole = arms.mixture("uniform", given, settings, generator)
    batches = rows.batches(whole, generator, language_model, batch_tokens=warmup.batch_tokens)
    warm_up(language_model, batches, warmup)
    atomic.write_bytes(path, loading.trained(language_model))


def perform(root: str, index: int) -> None:
    """Train one arm with one seed and keep the result; what is already there is not trained again."""
    comparison = open_comparison(root)
    arm, seed = comparison.trainings[index]
    path = comparison.path(arm, seed)
    if path.exists():
        return
    job, settings = comparison.job, comparison.evaluation
    device.pin(job.pipeline.cluster.threads)
    language_model = loading.load(
        job.model_path, config=job.model_config, seed=seed, tokenizer=job.tokenizer_path, adapter=job.adapter_path
    )
    if settings.warmup is not None:
        loading.restore(language_model, comparison.start(seed))
    rows = _rows(root, (Path(root) / "contest.json").stat().st_mtime_ns)
    generator = np.random.default_rng([seed, job.pipeline.seed])
    given = arms.Rows(comparison.weights[arm.run or comparison.run], rows.clean, rows.pool.targets)
    drawing = generator if arm.draw is None else arms.drawing(arm.draw)
    mixture = arms.mixture(arm.use, given, settings, drawing)
    own = TokenWeights(open_job(arm.run or comparison.run), given.weights) if comparison.token_level(arm) else None
    batches = rows.batches(mixture, generator, language_model, batch_tokens=settings.batch_tokens, token_weights=own)
    tokens, losses = judge(language_model, batches, mixture.counts, rows.held_out(language_model), settings)
    content = {
        "arm": arm.name,
        "seed": seed,
        "tokens": tokens,
        "losses": losses,
        "parameters": sum(parameter.numel() for parameter in language_model.model.parameters()),
        "rows": len(mixture.rows),
        "effective_sample_size": mixture.effective_sample_size,
        "duplicate_mass": _duplicate_mass(mixture, rows),
        "leaked": rows.leaked,
    }
    atomic.write_bytes(path, canonical(content))


@lru_cache(maxsize=1)
def _rows(root: str, _changed: int) -> TrainingRows:
    comparison: Comparison = open_comparison(root)
    return TrainingRows(comparison.job, comparison.evaluation, sources.source_from_dict(comparison.data))


def _duplicate_mass(mixture: Mixture, rows: TrainingRows) -> float:
    """Share of the training that goes to pool rows whose text an earlier row has."""
    keys = rows.pool.keys
    inside = mixture.rows < len(keys)
    return duplicate_mass(mixture.shares[inside], [keys[row] for row in mixture.rows[inside]])

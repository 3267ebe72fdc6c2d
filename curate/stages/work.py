"""What each stage does with its committed inputs: contents in, contents out; `perform` commits them.

Per shard: prepare, featurize, weigh, render. Per target: target. Once: proxy, fit, select, seal.
Plumbing: reads, calls a room, returns what is to be written. Runs on workers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from curate.engine import fingerprints
from curate.errors import DataError, IntegrityError
from curate.features import store
from curate.features.base import NONFINITE
from curate.features.batched import NO_LOSS
from curate.features.settings import GradientsConfig, ProxyFeaturesConfig
from curate.gradients.budget import fitting_tokens
from curate.manifest import commits, dataset, generations
from curate.models import device, loading, optimizer_state, warmup
from curate.models.language_model import LanguageModel
from curate.models.layers import ALL_BLOCKS, captured_layers
from curate.online import tasks
from curate.runs.job import Job, StoredProblem, open_job
from curate.sinks import adjustment, card, histogram, render, selection, tally
from curate.sinks.base import weight_columns
from curate.sources import base as sources
from curate.sources import rows
from curate.stages import featurizing, model_weights, proxy_states, stability
from curate.stages.loop_problem import StoredLoop
from curate.stages.refine import RefinedLoop
from curate.storage import atomic, tables
from curate.storage.atomic import Part
from curate.storage.fingerprint import canonical, fingerprint
from curate.storage.outputs import Content, Outcome
from curate.types import Features

FIX_NONFINITE = "Set features.on_nonfinite: drop to set such rows aside, or look at the row."
MASKED = "response masked: the question was answered anew"


def perform(run_dir: str, stage: str, index: int) -> commits.Commit:
    """Run one task of a stage and commit it (`tasks.perform`)."""
    job = open_job(run_dir)
    fingerprint = job.record.stages[stage]
    if commits.is_done(job.paths, stage, index, fingerprint):
        return commits.require(job.paths, stage, index)
    device.pin(job.pipeline.cluster.threads)
    outcome = STAGES[stage](job, index)
    parts = [_write(path, content) for path, content in outcome.contents.items()]
    rows_out = outcome.rows_in - outcome.rows_dropped
    facts = outcome.facts | fingerprints.task(job, stage, index)
    record = commits.Commit(stage, index, fingerprint, outcome.rows_in, rows_out, outcome.rows_dropped, facts=facts)
    for path in outcome.absent:
        atomic.remove(path)
    return commits.commit(job.paths, record, parts)


def prepare(job: Job, index: int) -> Outcome:
    """Look at every row of a shard once, before anything expensive is done to any of them."""
    shard, pool = job.parts[index], job.pipeline.pool
    table = sources.read(shard, job.source.schema)
    reasons = rows.check(table, pool)
    if pool.on_bad_row == "error":
        rows.first_bad(reasons, shard, pool)
    dropped = sum(reason is not None for reason in reasons)
    facts = {"content": sources.content_hash(table), "read": sources.content_hash(sources.fields(table, pool))}
    return Outcome(rows_in=len(table), rows_dropped=dropped, facts=facts)


def proxy(job: Job, _: int) -> Outcome:
    """Make the proxy that featurize reads: loaded, with adapters if asked for, warmed up if asked for."""
    settings = job.model_config
    language_model = loading.load(job.model_path, config=settings, seed=job.pipeline.seed, tokenizer=job.tokenizer_path)
    contents: dict[Path, Content] = {}
    facts: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in language_model.model.parameters())}
    if isinstance(job.pipeline.features, ProxyFeaturesConfig) and job.pipeline.features.batch_tokens == "auto":
        facts["batch_tokens"] = _fitting_tokens(job, language_model)
    if settings.warmup is None:
        kept = _files(proxy_states.states(job)[-1], language_model) if job.proxy_is_made else {}
        if settings.optimizer is not None:
            kept |= _moments_of(job, Path(settings.optimizer), language_model, facts)
        return Outcome(kept, facts=facts)
    losses: list[float] = []
    rates: list[float] = []

    def keep(moments: dict[str, warmup.Moments], rate: float) -> None:
        state = proxy_states.states(job)[len(rates)]
        rates.append(rate)
        contents.update({state.moments: warmup.optimizer_bytes(moments)} | _files(state, language_model))

    batches = featurizing.warmup_batches(job, language_model)
    warmup.warm_up(language_model, batches, settings.warmup, progress=_telling(job, losses), keep=keep)
    facts["warmup_loss"] = [losses[0], float(np.mean(losses[-max(1, len(losses) // 10) :]))]
    if len(rates) > 1:
        facts["checkpoints"] = [rate / sum(rates) for rate in rates]
    return Outcome(contents, facts=facts)


def _fitting_tokens(job: Job, language_model: LanguageModel) -> int:
    features = job.pipeline.features
    gradients = features if isinstance(features, GradientsConfig) else GradientsConfig()
    found = fitting_tokens(
        language_model,
        free=device.free_bytes(language_model.device),
        max_tokens=job.model_config.max_tokens,
        projection=gradients.projection,
        layers=gradients.layers,
    )
    job.events.write("note", stage="proxy", text=f"features.batch_tokens: auto is {found} in this run")
    return found


def _moments_of(job: Job, path: Path, language_model: LanguageModel, facts: dict[str, Any]) -> dict[Path, Content]:
    """Adam's moments of the captured layers from a trainer's checkpoint, in our own format; says what matched."""
    features = job.pipeline.features
    layers = features.layers if isinstance(features, GradientsConfig) else ALL_BLOCKS
    names = [f"{name}.weight" for name in captured_layers(language_model, layers)]
    matched = optimizer_state.read_moments(path, language_model.causal, names=names)
    job.events.write("note", stage="proxy", text=matched.describe())
    facts["optimizer"] = {"found": matched.describe(), "beta1": matched.beta1, "beta2": matched.beta2}
    return {proxy_states.states(job)[-1].moments: warmup.optimizer_bytes(matched.moments)}


def target(job: Job, place: int) -> Outcome:
    """Features of the samples of one target, gradients plain."""
    features = featurizing.features_of_target(job, place)
    table = store.to_table(features, dtype="float32", spec=featurizing.spec(job))
    return Outcome({job.paths.target(place): table}, rows_in=len(table))


def featurize_shard(job: Job, index: int) -> Outcome:
    """Features of one shard of the pool."""
    settings, features = job.pipeline.features, featurizing.features_of_shard(job, index)
    for row, reason in enumerate(features.reasons):
        if settings.on_nonfinite == "error" and reason is not None and reason.startswith(NONFINITE):
            raise DataError(job.place(index, row), reason, "a finite feature and loss", FIX_NONFINITE)
    dropped = sum(reason is not None for reason in features.reasons)
    part = store.to_table(features, dtype=settings.dtype, spec=featurizing.spec(job))
    return Outcome({job.paths.features(index): part}, rows_in=len(features.reasons), rows_dropped=dropped)


def fit(job: Job, _: int) -> Outcome:
    """Learn the method's state: from the features of the whole pool, one shard in memory at a time, or by a training."""
    if job.pipeline.loop is not None:
        return _trained(job)
    problem = StoredProblem(job)
    state = job.method().fit(problem)
    stable = stability.measure(job, problem)
    if stable is not None:
        problem.note(stability.describe(stable))
    return Outcome({job.paths.state: state}, facts={"notes": problem.notes[-20:], "stability": stable})


def _trained(job: Job) -> Outcome:
    """Learn while the proxy trains; with `refine`, rows are generated beside the pool's."""
    settings = job.pipeline.refine
    loop = StoredLoop(job) if settings is None else RefinedLoop(job, settings)
    state = job.method().fit(loop)
    facts: dict[str, Any] = {"tokens": int(state["tokens"])}
    contents: dict[Path, Content] = {}
    if isinstance(loop, RefinedLoop):
        state, rows = loop.finish(state)
        contents[job.paths.generated], facts["generated"] = rows, len(rows)
    contents |= {job.paths.pair / f"{name}.safetensors": data for name, data in loop.models.items()}
    facts["notes"] = loop.notes[-20:]
    first = len(job.shards)
    seen = [job.paths.commit("prepare", first + place) for place in range(job.record.generated)]  # of rows now replaced
    return Outcome(contents | {job.paths.state: state}, (job.paths.loop, *seen), facts=facts)


def weigh(job: Job, index: int) -> Outcome:
    """Weights of one shard, from its features and the state; online, from the newest generation."""
    if job.pipeline.online is not None:
        return tasks.weigh(job, index)
    features, reasons, token_counts = job.stored(index)
    state = tables.read_arrays(job.verified("fit", 0, within=job.paths.state)[0])
    columns: dict[str, pa.Array] = {}
    facts: dict[str, Any] = {}
    if job.pipeline.loop is not None and job.pipeline.loop.predictions:
        made = model_weights.of_shard(job, index, state, stage="fit", task=0, directory=job.paths.pair)
        values, columns, token_counts = made.made.rows, made.columns, made.lengths
        facts = {"tokens": int(token_counts.sum())}
    else:
        values = job.method().weigh(state, features)
    weights = values.to(torch.float32).numpy()
    if job.pipeline.loop is not None:
        why = np.where(_masked(state, features), MASKED, NO_LOSS)
        reasons = [reason or (str(why[row]) if np.isnan(weights[row]) else None) for row, reason in enumerate(reasons)]
    columns = {
        "weight": pa.array(weights, pa.float32(), mask=np.isnan(weights)),
        "reason": pa.array(reasons, pa.string()),
        **columns,
    }
    if job.pipeline.output.tokens is not None:
        counted = token_counts if token_counts is not None else featurizing.count_tokens(job, index)
        columns["tokens"] = pa.array(counted, pa.int32())
    dropped = sum(reason is not None for reason in reasons)
    part = {job.paths.weights(index): pa.table(columns)}
    return Outcome(part, rows_in=len(reasons), rows_dropped=dropped, facts=facts)


def _masked(state: dict[str, np.ndarray], features: Features) -> np.ndarray:
    """Rows of a shard whose responses were generated anew, bool [n]."""
    if "masked" not in state:
        return np.zeros(features.rows, bool)
    start = int(state["starts"][features.shard])
    return state["masked"][start : start + features.rows]


def select(job: Job, _: int) -> Outcome:
    """Decide once for the pool which rows are written."""
    output = job.pipeline.output
    job.check_mean()
    change = adjustment.adjustment(job.labelled_weights, output)
    chosen = selection.select(
        lambda: (change.of(*found) for found in job.labelled_weights()), output, job.pipeline.seed
    )
    return Outcome({job.paths.selection: canonical({"selection": chosen.to_json(), "adjustment": asdict(change)})})


def render_shard(job: Job, index: int) -> Outcome:
    """Rows and weights of one shard to rows of the dataset and rows set apart."""
    weights, table = tables.read_arrow(job.verified("weigh", index)[0]), _with_provenance(job, index)
    chosen, change = job.selected()
    rendered = render.render(
        table,
        change.apply(weights["weight"].to_numpy().astype(np.float32), job.labels(index)),
        weights["reason"].to_pylist(),
        selection=chosen,
        config=job.pipeline.output,
        shard=index,
        token_weights=weights["token_weight"].combine_chunks() if job.pipeline.token_level else None,
    )
    kept = rendered.kept.replace_schema_metadata({**(rendered.kept.schema.metadata or {}), "curate": job.stated})
    contents: dict[Path, Content] = {job.paths.data(index, job.record.shards): kept}
    dropped, total = job.paths.dropped(index), len(table)
    if rendered.dropped.num_rows:
        contents[dropped] = rendered.dropped
    facts = {"written": rendered.kept.num_rows, "tally": _tally(job, index, rendered)}
    absent = () if rendered.dropped.num_rows else (dropped,)
    return Outcome(contents, absent, rows_in=total, rows_dropped=total - rendered.distinct, facts=facts)


def _tally(job: Job, index: int, rendered: render.Rendered) -> tally.Tally:
    """Rows of the shard by weight and by source: by the column that the output balances, else by file."""
    output, shard = job.pipeline.output, job.parts[index]
    labels = job.labels(index) or [job.file_names.get(shard.file.path, "generated")] * len(rendered.copies)
    column = weight_columns(output, token_level=False).get("weight_column")
    weights = rendered.kept[column].to_numpy() if column else None
    return tally.tally(weights, rendered.copies, labels)


def _with_provenance(job: Job, index: int) -> pa.Table:
    """The rows of a shard, and where each is from if some are generated."""
    table = job.read(index)
    if not job.record.generated:
        return table
    if index >= len(job.shards):
        own = sources.read(job.parts[index], job.provenance)
    else:
        nothing = [pa.nulls(len(table), field.type) for field in job.provenance]
        own = pa.table([pa.array([False] * len(table), pa.bool_()), *nothing[1:]], job.provenance)
    columns = [*table.columns, *own.columns]
    return pa.table(columns, pa.schema([*table.schema, *own.schema], table.schema.metadata))


def seal(job: Job, _: int) -> Outcome:
    """Check that every row is accounted for, then write the card and, last of all, the manifest."""
    done = [commits.require(job.paths, "render", index) for index in range(job.record.shards)]
    rows_in, rows_out, rows_dropped = commits.total(done)
    pool = sum(shard.rows for shard in job.parts)
    if rows_in != pool:
        found, expected = f"{rows_in} rows rendered", f"{pool} rows of the pool"
        raise IntegrityError("seal", found, expected, "Run `curate verify` on this directory.")
    facts = job.facts | {"rows_in": rows_in, "rows_kept": rows_out, "rows_dropped": rows_dropped}
    facts["environment_changes"] = job.record.environment_changes
    facts["rows_out"] = sum(record.facts["written"] for record in done)
    facts |= _generation(job)
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


def _described(job: Job, path: Path, data: bytes) -> dict[str, Any]:
    """A file that seal writes, as the manifest lists it."""
    own = str(path.relative_to(job.paths.root))
    return {"path": own, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _generation(job: Job) -> dict[str, Any]:
    """Online: which generation of weights the dataset has, and the step of the training that it was weighed at."""
    newest = generations.current(job.paths.root)
    return {} if newest is None else {"generation": newest.number, "step": newest.source.get("step", 0)}


STAGES: dict[str, Callable[[Job, int], Outcome]] = {
    "prepare": prepare,
    "proxy": proxy,
    "target": target,
    "featurize": featurize_shard,
    "fit": fit,
    "twin": tasks.twin,
    "rescore": tasks.rescore,
    "weigh": weigh,
    "select": select,
    "render": render_shard,
    "seal": seal,
}


def _files(state: proxy_states.State, language_model: LanguageModel) -> dict[Path, Content]:
    return {state.model / name: data for name, data in loading.files(language_model).items()}


def _telling(job: Job, losses: list[float]) -> Callable[[int, int, float], None]:
    """Note every loss, and say once a second how many tokens were seen."""
    said, told = time.monotonic(), 0

    def tell(step: int, seen: int, loss: float) -> None:
        nonlocal said, told
        losses.append(loss)
        if time.monotonic() - said > 1:
            job.events.write("progress", stage="proxy", done=seen - told, step=step, loss=round(loss, 4))
            said, told = time.monotonic(), seen

    return tell


def _write(path: Path, content: Content) -> Part:
    """Each kind of content has one canonical encoding."""
    if isinstance(content, bytes):
        return atomic.write_bytes(path, content)
    if isinstance(content, dict):
        return tables.write_arrays(path, content)
    if path.suffix == ".parquet":
        return tables.write_parquet(path, content, metadata={})
    return tables.write_arrow(path, content)

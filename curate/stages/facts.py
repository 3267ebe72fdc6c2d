"""What card, manifest and every part of the dataset state about a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curate.manifest import run as runs
from curate.methods.registry import METHODS
from curate.sinks import render, tally
from curate.sinks.base import weight_columns
from curate.storage.fingerprint import fingerprint

if TYPE_CHECKING:  # what trains loads the model libraries, which the process that only hands tasks out does without
    pass

from curate.runs.job import Job

STATED = ("method", "package", "model", "revision", "target_sha256", "config_sha256", "version", "normalisation")
"""Facts that every part of the dataset carries in its metadata."""


def file_names(job: Job) -> dict[str, str]:
    """What the card calls each file of the pool."""
    return tally.names(sorted({shard.file.path for shard in job.shards}))


def facts(job: Job) -> dict[str, Any]:
    """What card and manifest state about this run; nothing here depends on where or when it ran."""
    output, method = job.pipeline.output, METHODS[job.pipeline.method.name]
    model = job.record.model or job.record.encoder or {}
    kinds = {"weight_column": "float", "token_weight_column": "list<halffloat>"}
    named = weight_columns(output, token_level=job.pipeline.token_level)
    weight = [[name, kinds[key]] for key, name in named.items()]
    return {
        "name": f"Dataset weighted by {method.name}",
        "method": method.name,
        **({"package": method.provider} if method.outside else {}),
        "paper": method.paper,
        "model": Path(model["name"]).name if model and Path(model["name"]).exists() else model.get("name"),
        "revision": model.get("revision") or model.get("fingerprint"),
        "target_sha256": fingerprint([target.fingerprint for target in job.targets]) if job.targets else None,
        "config_sha256": runs.config_hash(job.record.config),
        "version": job.record.curate,
        "mode": output.mode,
        "rule": output.rule,
        "normalisation": output.normalisation,
        "weight_column": named.get("weight_column"),
        **({"token_weight_column": named["token_weight_column"]} if "token_weight_column" in named else {}),
        "columns": [[field.name, str(field.type)] for field in [*job.source.schema, *provenance(job)]] + weight,
        "pool_sha256": job.source.fingerprint,
        "shards": job.record.shards,
        "stages": job.record.stages,
        **({"kept_proxy": job.record.kept_proxy} if job.record.kept_proxy else {}),
    }


def provenance(job: Job) -> pa.Schema:
    """Columns that say of every row whether and how it was generated; none where nothing is."""
    return render.PROVENANCE if job.record.generated else pa.schema([])


def stated(job: Job) -> str:
    """The facts that every part of the dataset carries, as JSON."""
    known = facts(job)
    return json.dumps({name: known[name] for name in STATED if name in known}, sort_keys=True)

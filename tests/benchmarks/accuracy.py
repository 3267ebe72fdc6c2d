"""How well features keep the cosines of exact gradients: one model after a short training, rows of real text.

The oracle is the gradient of every row in float64, over all linear layers of the blocks. The error of features is the root
mean square error of the cosines of all pairs of rows. Ours are rounded as they are stored.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import material
import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from curate.features.settings import GradientsConfig
from curate.gradients.persample import features
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.types import Batch

SIZE = "7m"
SEEDS = (0, 1, 2)
BERGSON = str(material.ROOT / ".bench/bergson/bin/python")


def ratios() -> tuple[list[float], dict[str, Any]]:
    """Their error over ours for every seed, and the errors themselves with the bytes they cost."""
    theirs, ours = bergson_errors(), errors({})
    facts = {
        "CountSketch k 4096": {"error": round(median(ours), 5), "bytes": 2 * 4096},
        "per-module p16": {"error": round(median(theirs), 5), "bytes": 4 * bergson(SEEDS[0]).shape[1]},
    }
    return [their / our for their, our in zip(theirs, ours, strict=True)], {"errors": facts, "rounds": len(SEEDS)}


def errors(section: Mapping[str, Any], *, dtype: str = "float32") -> list[float]:
    """Error of our features with a `features` section, for every seed, from a model in a number format."""
    found = []
    for seed in SEEDS:
        projection = {**section.get("projection", {}), "seed": seed}
        settings = GradientsConfig.model_validate({**section, "projection": projection})
        found.append(error(own(settings, dtype).half()))
    return found


@cache
def bergson_errors() -> list[float]:
    """Error of bergson's features for every seed, as it stores them (float32)."""
    return [error(bergson(seed)) for seed in SEEDS]


def error(features: Tensor) -> float:
    """Root mean square error of the cosines of all pairs, from features [n, k]."""
    rows, columns = torch.triu_indices(len(features), len(features), offset=1)
    return float((cosines(features) - exact())[rows, columns].square().mean().sqrt())


def cosines(vectors: Tensor) -> Tensor:
    """[n, n], float64."""
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    return unit @ unit.T


@cache
def exact() -> Tensor:
    """Cosines of the exact gradients, [n, n]."""
    model = AutoModelForCausalLM.from_pretrained(material.warm_model(SIZE), dtype=torch.float64).eval()
    named = model.named_parameters()
    weights = [weight for name, weight in named if ".layers." in name and weight.ndim == 2]
    gradients = []
    for row in material.judged(material.prepare(SIZE)):
        loss = model(input_ids=row[None], labels=row[None], use_cache=False).loss
        gradients.append(torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, weights)]))
    return cosines(torch.stack(gradients))


def own(settings: GradientsConfig, dtype: str) -> Tensor:
    """Our features of the judged rows, [n, k]."""
    ids = material.judged(material.prepare(SIZE))
    batch = Batch(tuple(range(len(ids))), ids, torch.ones_like(ids), ids)
    return features(_language_model(dtype), batch, projection=settings.projection, layers=settings.layers)[0]


@cache
def bergson(seed: int) -> Tensor:
    """bergson's features of the judged rows, [n, k]."""
    with tempfile.TemporaryDirectory() as place:
        ids, out = Path(place) / "ids.npy", Path(place) / "features.npy"
        np.save(ids, material.judged(material.prepare(SIZE)).numpy())
        command = [BERGSON, "-m", "peers.bergson", str(material.warm_model(SIZE)), str(ids), str(seed), str(out)]
        subprocess.run(command, cwd=Path(__file__).parent, check=True, stderr=subprocess.DEVNULL)
        return torch.from_numpy(np.load(out))


@cache
def _language_model(dtype: str) -> LanguageModel:
    path = material.warm_model(SIZE)
    return load(path, config=ModelConfig.model_validate({"name": str(path), "dtype": dtype}), seed=0)

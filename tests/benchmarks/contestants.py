"""What is measured in curate's own environment: its features, and what torch and transformers do without it.

python tests/benchmarks/contestants.py FOLDER       # speaks the protocol of server.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from material import LENGTHS, batch, rows
from server import Make, Run, serve
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedModel

from curate.bilevel.matching import greedy
from curate.features.batched import collate
from curate.gradients.along import along, mean_gradient
from curate.gradients.difference import along_by_difference, difference_step
from curate.gradients.gram import gram, target_factors
from curate.gradients.persample import features
from curate.gradients.projection import ProjectionSettings
from curate.models.base import ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.loading import load
from curate.models.losses import batch_token_losses
from curate.models.pair import Pair, in_float32
from curate.models.twin import Twin
from curate.sources.layout import batches
from curate.trainers.selector import METHOD, Selector
from curate.types import Batch

PROJECTIONS = {
    "countsketch": {"kind": "countsketch", "dim": 4096},
    "factorised": {"kind": "factorised", "dim": 4096},
    "concat": {"kind": "concat", "rank": 16},
}
ALIKE = 0.01
"""Largest relative error of inner products by difference."""
PADDED = 16
"""Rows of a padded batch, in the order they come."""
BUDGET = 2048
"""Tokens of a packed batch."""


STEPS = 8
"""Training steps of a call: the target's gradient is read in the first, and once in `refresh`."""
CANDIDATES_OF_A_STEP = 2
"""Candidates for each sample that is trained on."""


def less_read(name: str, **more: Any) -> dict[str, Any]:
    """A method that chooses from half of each sample, as a `Selector` does by default."""
    return {"name": name, "loop": {**METHOD["loop"], **more}}


SELECTIONS: dict[str, dict[str, Any]] = {
    "filter_then_weight": METHOD,
    "filter_then_weight/whole": {"name": "filter_then_weight"},
    "filter_then_weight/all": less_read("filter_then_weight", layers={"depth": 1.0}),
    "filter_then_weight/factored": less_read("filter_then_weight", metric="factored"),
    "filter_then_weight/attention": less_read("filter_then_weight", layers={"modules": ["o_proj"]}),
    "greats": less_read("greats"),
    "greats/whole": {"name": "greats"},
    "tracin": less_read("tracin"),
    "tracin/all": {"name": "tracin", "loop": {"layers": {"depth": 1.0}}},
}


# Without curate


def plain_model(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()


def forward_backward(folder: Path) -> Run:
    """What a training step computes: all weight gradients, summed over the batch."""
    model, (ids, _) = plain_model(folder), batch(folder)

    def run() -> float:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        model.zero_grad()
        return float(loss.detach())

    return run


def descended(model: PreTrainedModel) -> torch.optim.AdamW:
    """An optimizer that hardly moves, so that every call does the same work."""
    return torch.optim.AdamW(model.parameters(), lr=1e-6)


def plain_step(folder: Path) -> Run:
    """Training steps on as many samples as a selection keeps: forward, backward, AdamW."""
    model, (ids, _) = plain_model(folder), batch(folder)
    optimizer, kept = descended(model), ids[: len(ids) // CANDIDATES_OF_A_STEP]

    def run() -> float:
        total = 0.0
        for _ in range(STEPS):
            loss = model(input_ids=kept, labels=kept, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss.detach())
        return total

    return run


def _keeping(found: list[tuple[Tensor, Tensor]]) -> Callable[..., None]:
    """A forward hook that keeps a layer's inputs with the gradients at its output."""

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        output.register_hook(lambda gradient: found.append((inputs[0].detach(), gradient.detach())))

    return keep


def ghost_step(folder: Path) -> Run:
    """The same steps with candidates chosen before them by GREATS' rule, written plainly: hooks keep the factors of candidates
    and target in one pass, then ghost products, then a second pass on the chosen; the target is read at every step."""
    model, (ids, targets) = plain_model(folder), batch(folder)
    optimizer, kept = descended(model), len(ids) // CANDIDATES_OF_A_STEP
    both = torch.cat([ids, targets])
    layers = [module for name, module in model.named_modules() if ".layers." in name and isinstance(module, nn.Linear)]

    def products() -> Tensor:
        found = list[tuple[Tensor, Tensor]]()
        handles = [layer.register_forward_hook(_keeping(found)) for layer in layers]
        model(input_ids=both, labels=both, use_cache=False).loss.backward()
        for handle in handles:
            handle.remove()
        model.zero_grad()
        total = torch.zeros(len(both), len(both))
        for inputs, gradients in found:
            pairs = torch.einsum("itd,jsd->ijts", inputs, inputs) * torch.einsum("itd,jsd->ijts", gradients, gradients)
            total += pairs.sum((2, 3))
        return total

    def run() -> float:
        total = 0.0
        for _ in range(STEPS):
            gram = products()
            along = gram[: len(ids), len(ids) :].mean(1).double()
            chosen = greedy(gram[: len(ids), : len(ids)].double(), along, kept, 1e-6)
            loss = model(input_ids=ids[chosen], labels=ids[chosen], use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss.detach())
        return total

    return run


def activation_gradients(folder: Path) -> Run:
    """The least that any method must compute that reads gradients at the outputs of all layers."""
    model, (ids, _) = plain_model(folder), batch(folder)
    model.requires_grad_(False)
    model.enable_input_require_grads()

    def run() -> float:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        return float(loss.detach())

    return run


def one_token(folder: Path) -> Run:
    """Next to nothing, to have all code loaded and the libraries' own buffers made."""
    model = plain_model(folder)

    def run() -> float:
        loss = model(input_ids=torch.zeros(1, 2, dtype=torch.int64), labels=torch.zeros(1, 2, dtype=torch.int64)).loss
        loss.backward()
        model.zero_grad()
        return float(loss.detach())

    return run


def vmap_gradients(folder: Path) -> Run:
    """Per-sample gradients of the linear layers of the blocks by torch.func, not projected."""
    model, (ids, _) = plain_model(folder), batch(folder)
    model.requires_grad_(False)
    weights: dict[str, Tensor] = {
        name: weight for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2
    }

    def loss_of(weights: dict[str, Tensor], row: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(model, weights, kwargs={"input_ids": row[None], "use_cache": False}).logits
        loss = functional.cross_entropy(logits[0, :-1], row[1:])
        return loss, loss.detach()

    def run() -> float:
        gradients, losses = vmap(grad(loss_of, has_aux=True), in_dims=(None, 0))(weights, ids)
        del gradients
        return float(losses.mean())

    return run


def padded_losses(lengths: str, folder: Path) -> Run:
    """Token losses of two models as a plain loop computes them: padded batches in the order of the rows."""
    models = [plain_model(folder), plain_model(folder)]
    texts = rows(folder, lengths)
    padded = [collate_rows(texts[start : start + PADDED]) for start in range(0, len(texts), PADDED)]

    @torch.inference_mode()
    def losses(model: PreTrainedModel, part: Batch) -> Tensor:
        logits = model(input_ids=part.ids, attention_mask=part.attention, use_cache=False).logits[:, :-1]
        return functional.cross_entropy(logits.flatten(0, 1), part.labels[:, 1:].flatten(), reduction="none")

    def run() -> float:
        found = [[losses(model, part) for model in models] for part in padded]
        return float(sum(proxy.sum() for proxy, _ in found))

    return run


# curate


def language_model(folder: Path) -> LanguageModel:
    path = folder / "model"
    return load(path, config=ModelConfig(name=str(path), dtype="float32"), seed=0)


def full_batch(ids: Tensor) -> Batch:
    return Batch(tuple(range(len(ids))), ids, torch.ones_like(ids), ids)


def collate_rows(texts: list[list[int]]) -> Batch:
    return collate(list(range(len(texts))), texts, [[True] * len(text) for text in texts])


def gradient_features(kind: str, folder: Path) -> Run:
    lm, samples = language_model(folder), full_batch(batch(folder)[0])
    projection = ProjectionSettings.model_validate(PROJECTIONS[kind])
    return lambda: float(features(lm, samples, projection=projection)[1].mean())


def exact_gram(folder: Path) -> Run:
    """Inner products of the exact gradients of all samples with all of the target's, both sides made anew."""
    lm, (samples, targets) = language_model(folder), map(full_batch, batch(folder))

    def run() -> float:
        return float(gram(lm, samples, target_factors(lm, [targets]))[0].norm())

    return run


def exact_direction(folder: Path) -> Run:
    """Inner products of all samples with one direction, the target's mean gradient."""
    lm, (samples, targets) = language_model(folder), map(full_batch, batch(folder))
    direction = mean_gradient(lm, [targets])
    return lambda: float(along(lm, samples, direction)[1].mean())


def direction_by_difference(folder: Path) -> Run:
    """The same from two forward passes, at a step that was chosen on another batch."""
    lm, (samples, targets) = language_model(folder), map(full_batch, batch(folder))
    direction = mean_gradient(lm, [targets])
    step = difference_step(lm, targets, direction)

    def slopes() -> Tensor:
        return along_by_difference(lm, [samples], direction, step=step, check=False)

    exact = along(lm, samples, direction)[0].double()
    if (error := float((slopes() - exact).norm() / exact.norm())) > ALIKE:
        raise ValueError(f"inner products by difference are wrong by {error:.1%}")
    return lambda: float(slopes().sum())


def rescoring(folder: Path) -> Run:
    """What online mode does with a batch: excess losses under proxy and reference, two forward passes."""
    return _rescored(language_model(folder), folder)


def rescoring_adapters(folder: Path) -> Run:
    """The same of two sets of adapters on one base."""
    path = folder / "model"
    config = ModelConfig.model_validate({"name": str(path), "dtype": "float32", "lora": {}})
    return _rescored(load(path, config=config, seed=0), folder)


def _rescored(lm: LanguageModel, folder: Path) -> Run:
    samples = full_batch(batch(folder)[0])
    in_float32(lm)
    pair = Pair(lm, Twin({name: each for name, each in lm.causal.named_parameters() if each.requires_grad}))
    return lambda: float(pair.excess(samples).sum())


def chosen_step(selection: str, folder: Path) -> Run:
    """The same steps on what a method chooses of twice as many candidates, from the factors of one pass."""
    model, (ids, targets) = plain_model(folder), batch(folder)
    optimizer = descended(model)
    given = {"start": 0, "keep": 1 / CANDIDATES_OF_A_STEP} | SELECTIONS[selection].get("loop", {})
    wanted = torch.cat([targets, targets])  # as many as candidates
    target = {"input_ids": wanted, "labels": wanted}
    method = SELECTIONS[selection] | {"loop": given}
    selector = Selector(model, optimizer, [target], method=method, pack=True)

    def run() -> float:
        total = 0.0
        for _ in range(STEPS):
            loss = selector.loss({"input_ids": ids, "labels": ids})
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += float(loss.detach())
        return total

    return run


def packed_losses(lengths: str, folder: Path) -> Run:
    """Token losses of two models, laid out as a shard is."""
    models = [language_model(folder), language_model(folder)]
    texts = rows(folder, lengths)
    parts = [
        collate_rows([texts[row] for row in part])
        for part in batches([len(text) for text in texts], BUDGET, padded=False)
    ]

    @torch.inference_mode()
    def run() -> float:
        found = [[batch_token_losses(lm, part) for lm in models] for part in parts]
        return float(sum(proxy.sum() for proxy, _ in found))

    return run


def named(folder: Path) -> Iterator[tuple[str, Make]]:
    """Every contestant of this environment by name."""
    makes: list[Callable[[Path], Run]] = [
        one_token, forward_backward, activation_gradients, vmap_gradients,
        exact_gram, exact_direction, direction_by_difference, rescoring, rescoring_adapters, plain_step, ghost_step,
    ]  # fmt: skip
    for make in makes:
        yield make.__name__, partial(make, folder)
    for selection in SELECTIONS:
        yield f"chosen_step/{selection}", partial(chosen_step, selection, folder)
    for kind in PROJECTIONS:
        yield kind, partial(gradient_features, kind, folder)
    for lengths in LENGTHS:
        yield f"padded_losses/{lengths}", partial(padded_losses, lengths, folder)
        yield f"packed_losses/{lengths}", partial(packed_losses, lengths, folder)


if __name__ == "__main__":
    serve(dict(named(Path(sys.argv[1]))))

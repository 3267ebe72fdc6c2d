"""Candidates of a step against autograd in float64: inner products under an optimizer's metric, and the step itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.optimization import Adafactor

from curate.gradients.along import mean_gradient
from curate.gradients.candidates import candidates
from curate.gradients.metric import Diagonal, Identity, Metric, OneSided, RankOne, metrics, muon_metric
from curate.models.base import LayerSettings
from curate.models.language_model import LanguageModel
from curate.models.layers import captured_layers, linear_orientation
from curate.models.losses import sample_losses
from curate.types import Batch
from tests.gradients.oracles import ARCHITECTURES, layer_gradients, open_model
from tests.gradients.test_gradients_inner import Largest

Checkpoint = Callable[..., Path]
WEIGHTS = torch.tensor([0.7, 0.0, 1.9, 0.4], dtype=torch.float64)
MORE = [("gpt2", {"gradient_checkpointing": True}), ("qwen3", {}), ("gemma", {}), ("gpt_neox", {}), ("opt", {}),
        ("llama", {"gradient_checkpointing": True, "lora": {"rank": 3}}), ("olmo2", {}), ("granite", {})]  # fmt: skip


def in_float64(checkpoint: Checkpoint, architecture: str, more: dict[str, object]) -> LanguageModel:
    language_model = open_model(checkpoint(architecture), **more)
    language_model.model.double()
    return language_model


def random_metrics(language_model: LanguageModel, kind: str) -> dict[str, Metric]:
    """P of every layer, of a kind, with values between a tenth and ten."""
    noise = torch.Generator().manual_seed(3)
    found: dict[str, Metric] = {}
    for name, layer in captured_layers(language_model).items():
        rows, columns = linear_orientation(layer, layer.get_parameter("weight")).shape
        drawn = 10 ** (2 * torch.rand(rows, columns, generator=noise, dtype=torch.float64) - 1)
        found[name] = {
            "identity": lambda: Identity(),
            "diagonal": lambda drawn=drawn: Diagonal(drawn),
            "rank one": lambda drawn=drawn: RankOne(drawn[:, 0], drawn[0]),
            "one-sided": lambda drawn=drawn: muon_metric(drawn.log()),
        }[kind]()
    return found


def products(language_model: LanguageModel, batch: Batch, found: dict[str, Metric], power: float) -> Tensor:
    """P^(q/2) G of all layers side by side [b, weights]."""
    gradients = layer_gradients(language_model, batch)
    return torch.cat([found[name].direct(each, power / 2).flatten(1) for name, each in gradients.items()], dim=1)


@pytest.mark.parametrize("kind", ["identity", "diagonal", "rank one", "one-sided"])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("architecture", "more"), [ARCHITECTURES[0], ARCHITECTURES[2], ARCHITECTURES[5]])
def test_products_under_a_metric_are_those_of_autograd(checkpoint, batch, kind, power, architecture, more):
    """T2.1, by whichever route: K between all candidates, c with another batch's mean gradient."""
    language_model = in_float64(checkpoint, architecture, more)
    found = random_metrics(language_model, kind)
    direction = mean_gradient(language_model, [batch])
    got = candidates(language_model, batch, metrics=found, power=power, direction=direction)
    rows = products(language_model, batch, found, power)
    assert got.gram is not None
    assert got.along is not None
    scale = float((rows @ rows.T).abs().max())
    torch.testing.assert_close(got.gram, rows @ rows.T, atol=1e-10 * scale, rtol=1e-10)
    torch.testing.assert_close(got.along, rows @ rows.mean(0), atol=1e-10 * scale, rtol=1e-10)
    torch.testing.assert_close(got.losses, sample_losses(language_model, batch).detach())


@pytest.mark.parametrize("work_bytes", [1, 4096, 2**24])
def test_products_do_not_depend_on_the_memory_for_them(checkpoint, batch, work_bytes):
    language_model = in_float64(checkpoint, "llama", {})
    found = random_metrics(language_model, "diagonal")
    rows = products(language_model, batch, found, 1.0)
    got = candidates(language_model, batch, metrics=found, work_bytes=work_bytes)
    torch.testing.assert_close(got.gram, rows @ rows.T, rtol=1e-9, atol=1e-9)


def test_some_layers_may_be_compared_and_all_are_trained(checkpoint, batch):
    language_model = in_float64(checkpoint, "llama", {})
    layers = LayerSettings(modules=["o_proj"], depth=0.5)
    found = random_metrics(language_model, "identity")
    got = candidates(language_model, batch, metrics=found, layers=layers)
    names = captured_layers(language_model, layers)
    assert 0 < len(names) < len(captured_layers(language_model))
    rows = torch.cat(
        [each.flatten(1) for name, each in layer_gradients(language_model, batch).items() if name in names], 1
    )
    torch.testing.assert_close(got.gram, rows @ rows.T, rtol=1e-9, atol=1e-12)
    assert compared(language_model, batch, got.weighted(WEIGHTS)) > len(names)


def compared(language_model: LanguageModel, batch: Batch, found: Tensor) -> int:
    """The gradients that a scalar writes, against those of the weighted losses; returns how many parameters have one.

    Norms of the llama family compute in float32 whatever the model is in, so ten digits can be asked of the others alone.
    """
    tolerance = 1e-10 if any(isinstance(each, nn.LayerNorm) for each in language_model.causal.modules()) else 2e-6
    trained = {name: each for name, each in language_model.causal.named_parameters() if each.requires_grad}
    found.backward()
    got = {name: each.grad for name, each in trained.items()}
    language_model.causal.zero_grad()
    wanted = WEIGHTS.to(found) @ sample_losses(language_model, batch)
    torch.testing.assert_close(found, wanted)
    wanted.backward()
    for name, each in trained.items():
        own = got[name]
        if each.grad is None:
            assert own is None or not own.any(), name
            continue
        assert own is not None, name
        assert own.dtype == each.dtype
        assert float((own - each.grad).norm()) <= tolerance * float(each.grad.norm()) + 1e-12, name
    language_model.causal.zero_grad()
    return len([each for each in got.values() if each is not None])


@pytest.mark.parametrize(("architecture", "more"), [*ARCHITECTURES, *MORE])
def test_the_step_from_the_factors_is_that_of_a_second_backward_pass(checkpoint, batch, architecture, more):
    """Of everything that is trained: linear layers, biases, norms, embeddings (tied or not), the head, adapters."""
    language_model = in_float64(checkpoint, architecture, more)
    got = candidates(language_model, batch, metrics={}, gram=False)
    assert got.step.reused, (got.step.observed.strange, got.step.observed.uncalled)
    assert compared(language_model, batch, got.weighted(WEIGHTS)) > 0


def test_tied_weights_get_both_of_their_gradients(checkpoint, batch):
    for tied in (True, False):
        language_model = open_model(checkpoint("llama", tie_word_embeddings=tied))
        language_model.model.double()
        got = candidates(language_model, batch, metrics={}, gram=False)
        assert got.step.reused
        compared(language_model, batch, got.weighted(WEIGHTS))


def test_what_does_not_fit_into_memory_is_run_once_more(checkpoint, batch):
    language_model = in_float64(checkpoint, "llama", {})
    got = candidates(language_model, batch, metrics={}, gram=False, kept_bytes=1000)
    assert not got.step.reused
    compared(language_model, batch, got.weighted(WEIGHTS))


def test_the_beginnings_of_samples_are_compared_and_the_whole_of_them_is_trained_on(checkpoint, batch):
    """Inner products and losses are those of a batch that was cut by hand, the step is that of the whole samples."""
    language_model = in_float64(checkpoint, "llama", {})
    found, cut = random_metrics(language_model, "diagonal"), batch.beginnings(0.5)
    assert cut.ids.shape[1] < batch.ids.shape[1]
    got = candidates(language_model, batch, metrics=found, layers=LayerSettings(depth=0.5), read=0.5)
    wanted = candidates(language_model, cut, metrics=found, layers=LayerSettings(depth=0.5))
    torch.testing.assert_close(got.gram, wanted.gram)
    torch.testing.assert_close(got.losses, wanted.losses)
    compared(language_model, batch, got.weighted(WEIGHTS))


def test_what_is_frozen_stays_without_a_gradient(checkpoint, batch):
    language_model = in_float64(checkpoint, "llama", {})
    for name, parameter in language_model.causal.named_parameters():
        parameter.requires_grad_("layers.1" in name)
    got = candidates(language_model, batch, metrics={}, gram=False)
    assert got.step.reused
    compared(language_model, batch, got.weighted(WEIGHTS))


def test_weights_of_zeros_are_a_step_of_zeros(checkpoint, batch):
    language_model = in_float64(checkpoint, "llama", {})
    for kept in (2**30, 0):
        candidates(language_model, batch, metrics={}, gram=False, kept_bytes=kept).weighted(0 * WEIGHTS).backward()
        assert all(each.grad is not None and not each.grad.any() for each in language_model.causal.parameters())
        language_model.causal.zero_grad()


def test_gradients_that_were_there_are_added_to_and_scaled_ones_are_scaled(checkpoint, batch):
    """So gradient accumulation and loss scaling work: nothing but `backward` touches what lies in `.grad`."""
    language_model = in_float64(checkpoint, "llama", {})
    weight = language_model.causal.get_input_embeddings().get_parameter("weight")
    once = candidates(language_model, batch, metrics={}, gram=False)
    once.weighted(WEIGHTS).backward()
    assert weight.grad is not None
    first = weight.grad.clone()
    again = candidates(language_model, batch, metrics={}, gram=False)
    torch.testing.assert_close(weight.grad, first, rtol=0, atol=0)
    (0.25 * again.weighted(WEIGHTS)).backward()
    torch.testing.assert_close(weight.grad, 1.25 * first)


def test_half_precision_comes_close(checkpoint, batch):
    language_model = open_model(checkpoint("llama"))
    exact = in_float64(checkpoint, "llama", {})
    exact.causal.load_state_dict(language_model.causal.state_dict())
    language_model.causal.bfloat16()
    half, whole = (
        candidates(each, batch, metrics=random_metrics(each, "identity")) for each in (language_model, exact)
    )
    assert half.gram is not None
    assert whole.gram is not None
    assert half.gram.dtype == torch.float32
    assert float((half.gram - whole.gram).norm() / whole.gram.norm()) < 0.03
    half.weighted(WEIGHTS).backward()
    whole.weighted(WEIGHTS).backward()
    for rough, fine in zip(language_model.causal.parameters(), exact.causal.parameters(), strict=True):
        assert rough.grad is not None
        assert fine.grad is not None
        assert rough.grad.dtype == torch.bfloat16
        assert float((rough.grad.double() - fine.grad).norm() / fine.grad.norm()) < 0.05


@pytest.mark.parametrize("more", [{}, {"gradient_checkpointing": True}, {"lora": {"rank": 3}}])
def test_nothing_of_a_step_outlives_it(checkpoint, batch, more):
    """Hooks lie in the graph, which no garbage collector sees into: a cycle through it once kept the factors of every batch."""
    language_model = open_model(checkpoint("llama"), **more)
    got = candidates(language_model, batch, metrics=random_metrics(language_model, "identity"))
    kept = [weakref.ref(got.step), *(weakref.ref(layer.gradients) for layer in got.step._layers)]
    assert len(kept) > 5
    loss = got.weighted(WEIGHTS)
    loss.backward()
    del got, loss
    assert [each() for each in kept] == [None] * len(kept)


def test_long_rows_are_compared_within_the_bytes_given(checkpoint):
    """Two rows of 4,096 tokens: the pairs of tokens of one layer would take 268 MB, attention's of one row 67 MB a head."""
    language_model = open_model(checkpoint("llama", max_position_embeddings=4096), max_tokens=4096)
    ids = torch.randint(4, 61, (2, 4096), generator=torch.Generator().manual_seed(3))
    long = Batch((0, 1), ids, torch.ones_like(ids), ids)
    found = metrics(None, captured_layers(language_model))
    direction = mean_gradient(language_model, [long])
    with Largest() as largest:
        got = candidates(language_model, long, metrics=found, direction=direction, work_bytes=2**20)
        got.weighted(torch.tensor([0.5, 1.5])).backward()
    assert largest.bytes <= 8192 * 61 * 4
    assert got.gram is not None
    assert got.along is not None
    torch.testing.assert_close(got.gram.mean(1), got.along, rtol=1e-4, atol=1e-6)


# Optimizers


def trained(
    layer: nn.Module, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], steps: int = 4
) -> torch.optim.Optimizer:
    """An optimizer after some steps."""
    weight, noise = layer.get_parameter("weight"), torch.Generator().manual_seed(5)
    optimizer = make([weight])
    for _ in range(steps):
        weight.grad = torch.randn(weight.shape, generator=noise) * torch.arange(1, weight.shape[1] + 1)
        optimizer.step()
    return optimizer


def moved(layer: nn.Module, optimizer: torch.optim.Optimizer, gradient: Tensor) -> Tensor:
    """What the next step takes off the weight for a gradient, less what it would take for none."""
    weight, found = layer.get_parameter("weight"), list[Tensor]()
    kept, state = weight.detach().clone(), {key: value.clone() if isinstance(value, Tensor) else value
                                            for key, value in optimizer.state[weight].items()}  # fmt: skip
    for each in (gradient, torch.zeros_like(gradient)):
        weight.data.copy_(kept)
        optimizer.state[weight].update(
            {key: value.clone() if isinstance(value, Tensor) else value for key, value in state.items()}
        )
        weight.grad = each.clone()
        optimizer.step()
        found.append(kept - weight.detach())
    weight.data.copy_(kept)
    optimizer.state[weight].update(state)
    return found[0] - found[1]


OPTIMIZERS: dict[str, tuple[Callable[[list[nn.Parameter]], torch.optim.Optimizer], type, float]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), Identity, 1e-5),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), Identity, 1e-5),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99)), Diagonal, 0.02),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.9, 0.99)), Diagonal, 0.02),
    "amsgrad": (lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99), amsgrad=True), Diagonal, 0.02),
    "adafactor of torch": (lambda p: torch.optim.Adafactor(p, lr=0.1, beta2_decay=-2.0), RankOne, 0.05),
    "adafactor of transformers": (
        lambda p: Adafactor(p, lr=0.1, relative_step=False, scale_parameter=False, decay_rate=-2.0), RankOne, 0.05),
    "muon": (lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.0), OneSided, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "muon"])
@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6)])
def test_the_metric_points_where_the_optimizer_steps(name, shape):
    """Of a small gradient, which changes little in the state: the cosine of P g with the step.

    Adafactor norms its whole step, which is no part of P. A frozen P is a poor derivative of Muon's step; what it does
    get right is tested below.
    """
    make, kind, slack = OPTIMIZERS[name]
    layer = nn.Linear(shape[1], shape[0], bias=False)
    optimizer = trained(layer, make, steps=40)
    metric = metrics(optimizer, {"layer": layer})["layer"]
    assert isinstance(metric, kind)
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(9)) * 1e-2
    step, predicted = moved(layer, optimizer, gradient), metric.direct(gradient, 1.0)
    assert float(nn.functional.cosine_similarity(step.flatten(), predicted.flatten(), dim=0)) > 1 - slack


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6)])
def test_muons_metric_makes_its_step_of_its_momentum(shape):
    """P M is the polar factor of M; five iterations in bfloat16 come as close as that to it."""
    layer = nn.Linear(shape[1], shape[0], bias=False)
    optimizer = trained(layer, lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.0, nesterov=False), steps=10)
    momentum, before = optimizer.state[layer.weight]["momentum_buffer"].clone(), layer.weight.detach().clone()
    layer.weight.grad = momentum.clone()  # so the momentum keeps its direction
    predicted = metrics(optimizer, {"layer": layer})["layer"].direct(momentum, 1.0)
    optimizer.step()
    step = before - layer.weight.detach()
    assert float(nn.functional.cosine_similarity(step.flatten(), predicted.flatten(), dim=0)) > 0.97


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_its_first_step_an_optimizer_has_the_identity_for_a_metric(name):
    layer = nn.Linear(4, 3, bias=False)
    optimizer = OPTIMIZERS[name][0]([*layer.parameters()])
    assert metrics(optimizer, {"layer": layer})["layer"] == Identity()


def test_a_wrapped_optimizer_is_looked_into():
    class Wrapped:
        state, param_groups = {}, []

        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    layer = nn.Linear(4, 3, bias=False)
    inner = trained(layer, OPTIMIZERS["adamw"][0])
    assert isinstance(metrics(Wrapped(inner), {"layer": layer})["layer"], Diagonal)


def test_groups_with_learning_rates_of_their_own_have_them_in_the_metric():
    slow, fast = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    groups = [{"params": [slow.weight], "lr": 0.01}, {"params": [fast.weight], "lr": 0.1}]
    found = metrics(torch.optim.SGD(groups, lr=0.1), {"slow": slow, "fast": fast})
    ones = torch.ones(3, 4)
    torch.testing.assert_close(found["slow"].direct(ones, 1.0), 0.1 * ones)
    torch.testing.assert_close(found["fast"].direct(ones, 1.0), ones)


def test_the_closest_metric_of_rank_one_is_itself_where_it_has_rank_one():
    rows, columns = torch.rand(5).double() + 0.1, torch.rand(7).double() + 0.1
    close = Diagonal(rows[:, None] * columns).factored()
    torch.testing.assert_close(close.rows[:, None] * close.columns, rows[:, None] * columns)

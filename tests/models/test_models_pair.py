"""Two models on one base: what a pair predicts is what two models would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curate.errors import ModelError
from curate.models import loading
from curate.models.base import LoraSettings, ModelConfig
from curate.models.language_model import LanguageModel
from curate.models.pair import Pair, load_pair
from curate.sources.tokens import Tokens
from curate.stages.excess_losses import excess_losses
from tests.pipelines import tiny_world

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["llama", "gpt2", "adapters"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Opens the model again and again, and files of a proxy and a reference that were moved at random."""
    root = tmp_path_factory.mktemp(request.param)
    tiny_world.write_model(root / "model", "gpt2" if request.param == "gpt2" else "llama")
    lora = LoraSettings(rank=2) if request.param == "adapters" else None
    config = ModelConfig(name=str(root / "model"), max_tokens=48, lora=lora)

    def fresh() -> LanguageModel:
        return loading.load(root / "model", config=config, seed=0)

    for seed, name in enumerate(("proxy", "reference")):
        moved = fresh()
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in moved.causal.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
        (root / name).write_bytes(loading.trained(moved))
    return fresh, root


def rows(language_model: LanguageModel) -> list[Tokens | None]:
    """Rows of many lengths; one is not there, one predicts a few of its tokens."""
    found: list[Tokens | None] = []
    for text in tiny_world.texts(9):
        ids = language_model.tokenizer(text)["input_ids"]
        found.append(Tokens(ids, [False, *[True] * (len(ids) - 1)]))
    assert found[4] is not None
    found[4] = Tokens(found[4].ids, [place in (2, 5) for place in range(len(found[4].ids))])
    return [*found[:3], None, *found[3:]]


def alone(language_model: LanguageModel, row: Tokens) -> list[float]:
    """The slow obvious way: one row, one forward pass of transformers, cross entropy of whole logits."""
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        logits = language_model.model(input_ids=ids).logits[0, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
    return [0.0, *losses.tolist()]


def pair(opened) -> Pair:
    fresh, root = opened
    return load_pair(fresh(), reference=root / "reference", proxy=root / "proxy")


def test_excess_losses_are_those_of_two_models_row_by_row(opened):
    fresh, root = opened
    both = pair(opened)
    given = rows(both.language_model)
    found = excess_losses(both, given, max_tokens=48, token_budget=60, place=str)
    proxy, reference = fresh(), fresh()
    loading.restore(proxy, root / "proxy")
    loading.restore(reference, root / "reference")
    start = 0
    for row, length in zip(given, found.lengths.tolist(), strict=True):
        own = found.values[start : start + length]
        start += length
        if row is None:
            assert length == 0
            continue
        expected = torch.tensor(alone(proxy, row)) - torch.tensor(alone(reference, row))
        assert (~torch.isnan(own)).tolist() == row.loss
        torch.testing.assert_close(own[row.loss], expected[row.loss], atol=2e-5, rtol=1e-4)
    assert start == len(found.values)


def test_the_proxy_may_be_a_model_that_is_there_already(opened):
    """As in online mode: u from a checkpoint, w from a file."""
    fresh, root = opened
    loaded = fresh()
    loading.restore(loaded, root / "proxy")
    both, files = load_pair(loaded, reference=root / "reference"), pair(opened)
    given = rows(loaded)
    first, second = (excess_losses(each, given, max_tokens=48, token_budget=100, place=str) for each in (both, files))
    assert torch.equal(first.values.nan_to_num(7.0), second.values.nan_to_num(7.0))


def test_a_pair_leaves_no_graph_and_changes_neither_model(opened):
    both = pair(opened)
    kept = loading.trained(both.language_model)
    twin = {name: each.detach().clone() for name, each in both.reference.descent.parameters.items()}
    excess_losses(both, rows(both.language_model), max_tokens=48, token_budget=100, place=str)
    assert loading.trained(both.language_model) == kept
    assert all(torch.equal(each, twin[name]) for name, each in both.reference.descent.parameters.items())
    parameters = [*both.language_model.model.parameters(), *both.reference.descent.parameters.values()]
    assert all(parameter.grad is None for parameter in parameters)


def test_what_is_frozen_is_there_once(opened):
    both = pair(opened)
    trained = [name for name, each in both.language_model.causal.named_parameters() if each.requires_grad]
    assert sorted(both.reference.descent.parameters) == sorted(trained)


def test_a_file_of_another_model_is_refused(opened, tmp_path: Path):
    fresh, _ = opened
    (tmp_path / "other").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="other"):
        load_pair(fresh(), reference=tmp_path / "other")

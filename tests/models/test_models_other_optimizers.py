"""Optimizers that keep what Adam keeps, under Adam's names, and are not Adam: refused by name, stored or live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import pytorch_optimizer
import torch
from torch import nn

from curate.errors import ModelError
from curate.gradients.metric import Diagonal, metrics
from curate.models.optimizer_state import read_moments

from .test_models_optimizer_state import make_model, train

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OTHERS: Mapping[str, tuple[Make, str]] = {
    name: (lambda p, kind=kind: getattr(pytorch_optimizer, kind)(p, lr=1e-3), names)
    for name, kind, names in (
        ("Prodigy", "Prodigy", "p0, s"),
        ("SOAP", "SOAP", "GG, Q"),
        ("ADOPT", "ADOPT", "fixed_decay, weight_decouple"),
        ("MARS", "MARS", "last_grad"),
        ("GrokFast", "GrokFastAdamW", "grok_exp_avg"),
        ("AdEMAMix", "AdEMAMix", "exp_avg_slow"),
        ("AdaMod", "AdaMod", "exp_avg_lr"),
        ("StableAdamW", "StableAdamW", "kahan_comp"),
    )
} | {"NAdam": (lambda p: torch.optim.NAdam(p, lr=1e-3), "mu_product")}


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_with_adams_names_is_refused_by_what_it_has_beside(name: str, tmp_path: Path) -> None:
    make, names = OTHERS[name]
    model = make_model()
    optimizer = make(list(model.parameters()))
    train(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match=names):
        read_moments(tmp_path, make_model())
    with pytest.raises(ModelError, match="expected AdamW, Adam, SGD, Adafactor or Muon"):
        metrics(optimizer, {"layer": model.lm_head})


@pytest.mark.parametrize("name", ["Lion", "AdaBelief", "Shampoo", "CAME"])
def test_a_live_optimizer_of_an_unknown_kind_is_no_plain_descent(name: str) -> None:
    model = make_model()
    optimizer = getattr(pytorch_optimizer, name)(list(model.parameters()), lr=1e-3)
    train(model, optimizer)
    with pytest.raises(ModelError, match=r"optimizer: found one that has .*expected AdamW"):
        metrics(optimizer, {"layer": model.lm_head})


def test_stored_maxima_of_amsgrad_are_refused_and_live_ones_read(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, amsgrad=True)
    train(model, optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ModelError, match="max_exp_avg_sq"):
        read_moments(tmp_path, make_model())
    assert isinstance(metrics(optimizer, {"a": model.lm_head})["a"], Diagonal)


def test_settings_of_a_group_are_told_by_name(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer)
    for more, found in (({"d": 1.0}, "settings that Adam does not have: d"), ({"betas": (0.9, 0.95, 0.99)}, "3 betas")):
        content = optimizer.state_dict()
        content["param_groups"] = [{**group, **more} for group in content["param_groups"]]
        torch.save(content, tmp_path / "optimizer.pt")
        with pytest.raises(ModelError, match=found):
            read_moments(tmp_path, make_model())


def test_betas_that_a_checkpoint_does_not_say_are_said_to_be_taken(tmp_path: Path) -> None:
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer)
    content = optimizer.state_dict()
    for group in content["param_groups"]:
        del group["betas"]
    torch.save(content, tmp_path / "optimizer.pt")
    assert (
        read_moments(tmp_path, make_model())
        .describe()
        .endswith("it does not say Adam's betas, or says several: 0.9 and 0.999 are taken")
    )

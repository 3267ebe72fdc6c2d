"""The judge of trainers: it knows a weight that counts from one that does not, and from one that counts otherwise."""

from __future__ import annotations

import pytest
import torch

from curate.errors import ConfigError, ModelError
from curate.exports.registry import EXPORTERS
from curate.models import tiny
from curate.trainers import check_trainer
from curate.trainers.comparison import Labelled, Observed, gradient, judge, steps, tokens_with_loss
from curate.trainers.probes import registry
from curate.trainers.probes.registry import PROBES

RIGHT = torch.tensor([3.0, 0.0, -4.0])
BEFORE = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, -1.0, 5.0])]


def after(move: torch.Tensor) -> list[torch.Tensor]:
    return [each + move for each in BEFORE]


@pytest.mark.parametrize(
    ("move", "kind"),
    [
        (RIGHT, "honoured"),
        (0 * RIGHT, "ignored"),
        (1e-6 * RIGHT, "ignored"),
        (0.5 * RIGHT, "distorted"),
        (-RIGHT, "distorted"),
        (RIGHT + torch.tensor([0.0, 1.0, 0.0]), "distorted"),
        (torch.tensor([0.0, 5.0, 0.0]), "distorted"),
    ],
)
def test_the_verdict_follows_from_how_the_gradient_moved(move: torch.Tensor, kind: str) -> None:
    assert judge(BEFORE, after(move), RIGHT).kind == kind


def test_length_and_direction_of_the_move_are_told_apart() -> None:
    verdict = judge(BEFORE, after(0.5 * RIGHT + torch.tensor([0.0, 2.5, 0.0])), RIGHT)
    assert verdict.moved == pytest.approx((0.5, 0.5))
    assert verdict.astray == pytest.approx(2.5 / (2.5**2 + 2.5**2) ** 0.5)


def test_a_trainer_that_only_gets_one_step_right_is_not_let_through() -> None:
    assert judge(BEFORE, [BEFORE[0] + RIGHT, BEFORE[1]], RIGHT).kind == "distorted"


def test_the_loop_is_linear_in_its_factors_and_padding_is_not_in_it(tmp_path) -> None:
    model = tiny.load(tiny.write(tmp_path / "model"))[0]
    rows = [Labelled([3, 9, 7], [-100, 9, 7]), Labelled([8, 8, 5, 4, 1], [8, 8, -100, 4, 1])]
    both = gradient(model, rows, {0: 2.0, 1: -0.5}, 5)
    alone = [gradient(model, rows, {place: 1.0}, 1) for place in range(2)]
    torch.testing.assert_close(both, (2 * alone[0] - 0.5 * alone[1]) / 5)
    assert tokens_with_loss(rows) == 2 + 3, "nothing stands before the first token"


def test_steps_are_kept_whoever_makes_the_optimizer() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    with steps() as found:
        for scale in (1.0, 3.0):
            optimizer = torch.optim.AdamW(layer.parameters())
            (scale * layer(torch.ones(2))).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [step.tolist() for step in found.of(layer)] == [[1.0, 1.0], [3.0, 3.0]]
    optimizer.step()
    assert len(found.of(layer)) == 2


def test_the_plain_trainer_ignores_weights_and_the_mixin_honours_them() -> None:
    found = {name: check_trainer.check(name) for name in ("transformers", "transformers-weighted")}
    assert {name: each.verdict.kind for name, each in found.items()} == {
        "transformers": "ignored",
        "transformers-weighted": "honoured",
    }
    assert found["transformers-weighted"].verdict.moved == pytest.approx((1, 1), abs=1e-3)
    assert "does not see the weights" in found["transformers"].lines()[1]
    assert found["transformers"].trainer.startswith("transformers 5")


def test_a_trainer_that_is_not_installed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install ms-swift beside curate"):
        check_trainer.check("ms-swift")
    with pytest.raises(ConfigError, match="one of transformers, transformers-weighted, trl"):
        check_trainer.check("nothing")


def test_a_probe_that_took_other_steps_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PROBES["transformers"]
    monkeypatch.setattr(type(entry), "probe", lambda self: lambda *paths: Observed([], [torch.ones(1)]))
    with pytest.raises(ModelError, match="1 steps over 0 rows"):
        check_trainer.check("transformers")


def test_every_probe_reads_an_export_that_exists() -> None:
    assert {entry.export for entry in PROBES.values()} <= {*EXPORTERS}
    assert all(name == entry.name for name, entry in PROBES.items())

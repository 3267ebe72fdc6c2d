"""What every method with the model in the loop promises."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from curate.methods.batch import BatchWeigher
from curate.methods.registry import Entry
from curate.testing.regression import GOOD, ROWS, Regression, batch_of
from curate.types import Section


class BatchWeigherContract:
    """The battery of a `BatchWeigher`: a method whose class has `batch_weigher(rows)`.

    The training has 400 steps of eight rows, an interrupted one 30. Give settings with which whatever the method does from time
    to time happens within 30 steps: what never happens is not tested.

    Attributes:
        entry: the method's registry line.
        variants: settings to test it with, by name; what a variant leaves out is as in a pipeline file.
        untargeted: variants that read no target, or go by losses alone.
    """

    entry: ClassVar[Entry]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"defaults": {}}
    untargeted: ClassVar[Collection[str]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test runs for every variant."""
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", self.variants, indirect=True)

    @pytest.fixture
    def variant(self, request: pytest.FixtureRequest) -> str:
        """Name of a variant."""
        torch.set_num_threads(1)
        self._variant: str = request.param
        return self._variant

    def made(self) -> BatchWeigher:
        """The method with the settings of the variant, for the pool of the regression."""
        found = self.entry.method()
        config = found.Config.model_validate({**self.variants[self._variant]})
        return found(config).batch_weigher(ROWS)

    def begun(self) -> tuple[Regression, BatchWeigher]:
        """A model before its first step, and the method in its loop."""
        world, weigher = Regression(), self.made()
        weigher.begin(world.learner, world.targets(), world.pool())
        return world, weigher

    def test_the_registry_line_agrees_with_the_class(self, variant: str) -> None:
        found = self.entry.method()
        assert issubclass(found.Config, Section)
        config: Any = found.Config()
        assert config.name == self.entry.name
        assert hasattr(found, "batch_weigher")

    def test_all_rows_weigh_the_same_before_the_first_step(self, variant: str) -> None:
        _, weigher = self.begun()
        logits = weigher.logits()
        assert logits.shape == (ROWS,)
        assert logits.dtype == torch.float64
        assert logits.device.type == "cpu"
        assert float(logits.std()) == 0

    def test_rows_that_follow_the_targets_rule_come_out_heavier(self, variant: str) -> None:
        if variant in self.untargeted:
            pytest.skip("goes by the loss alone, or reads no target")
        world, weigher = self.begun()
        for number in range(400):
            world.step(weigher, number)
        logits = weigher.logits()
        assert torch.isfinite(logits).all()
        assert (logits[:GOOD, None] > logits[None, GOOD:]).double().mean() > 0.75

    def test_an_interrupted_training_goes_on_bit_for_bit(self, variant: str) -> None:
        whole, weigher = self.begun()
        first, before = self.begun()
        for number in range(30):
            whole.step(weigher, number)
        for number in range(11):
            first.step(before, number)
        kept, model = before.state(), first.descent.state()
        first.step(before, 11)  # what is kept does not move
        second, after = self.begun()
        second.descent.load(model)
        after.load(kept)
        for number in range(11, 30):
            second.step(after, number)
        assert torch.equal(weigher.logits(), after.logits())
        assert torch.equal(whole.theta, second.theta)

    def test_what_is_kept_are_tensors_on_the_cpu(self, variant: str) -> None:
        world, weigher = self.begun()
        world.step(weigher, 0)
        assert all(isinstance(value, Tensor) and value.device.type == "cpu" for value in weigher.state().values())

    def test_an_update_without_a_step_changes_nothing(self, variant: str) -> None:
        world, weigher = self.begun()
        world.step(weigher, 0)
        before = weigher.logits()
        weigher.update()
        assert torch.equal(before, weigher.logits())

    def test_logits_that_were_read_do_not_change_with_the_next_step(self, variant: str) -> None:
        world, weigher = self.begun()
        world.step(weigher, 0)
        before = weigher.logits()
        kept = before.clone()
        world.step(weigher, 1)
        assert torch.equal(before, kept)

    def test_terms_touch_no_parameter_and_leave_gradients_to_whoever_asks(self, variant: str) -> None:
        world, weigher = self.begun()
        world.step(weigher, 0)
        before = world.theta.detach().clone()
        for _ in weigher.terms(batch_of([1, 2, 3]), 0.5):
            assert world.theta.grad is None
        assert torch.equal(before, world.theta)

    def test_a_batch_of_one_row_is_a_batch(self, variant: str) -> None:
        world, weigher = self.begun()
        for term in weigher.terms(batch_of([7]), 0.0):
            term.backward()
        weigher.update()
        assert torch.isfinite(weigher.logits()).all()
        assert world.theta.grad is not None
        assert torch.isfinite(world.theta.grad).all()

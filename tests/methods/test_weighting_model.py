"""The network that weighs a batch: what it may depend on, and what it is before it has learned (METHODS T4.3)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.bilevel.feasible import effective_share, softmax_weights
from curate.bilevel.unrolled import surrogate
from curate.methods.weighting_model import (
    Readings,
    Vocabulary,
    WeightingModel,
    inputs,
    mean_vectors,
    objective,
    read,
    vocabulary,
    weights_of,
)
from curate.types import Batch

torch.set_num_threads(1)


def trained(width: int = 7, seed: int = 0) -> WeightingModel:
    """A network whose last layer is not zero."""
    model, noise = WeightingModel(width, width=16, heads=4, seed=seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.last.weight.copy_(torch.randn(1, 16, generator=noise))
    return model.double()


def rows(count: int, width: int = 7, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6))
def test_permuting_the_batch_permutes_the_weights(count, seed):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    model, batch = trained(seed=seed), rows(count, seed=seed)
    with torch.no_grad():
        torch.testing.assert_close(
            weights_of(model(batch))[order], weights_of(model(batch[order])), rtol=1e-9, atol=1e-12
        )


def test_identical_samples_weigh_the_same():
    with torch.no_grad():
        torch.testing.assert_close(weights_of(trained()(rows(1).repeat(9, 1))), torch.ones(9).double())


def test_a_fresh_network_is_uniform_to_the_bit():
    fresh = WeightingModel(7)
    with torch.no_grad():
        assert torch.equal(weights_of(fresh(rows(13).float()), 0.3), torch.ones(13))


def test_a_sample_counts_by_the_company_it_is_in():
    """A joint function of the batch: another neighbour changes the ratio of the first two."""
    model, batch = trained(), rows(5)
    other = batch.clone()
    other[4] += 3
    with torch.no_grad():
        first, second = weights_of(model(batch)), weights_of(model(other))
    assert abs(float(first[0] / first[1] - second[0] / second[1])) > 1e-3


def test_batches_of_one_size_are_weighed_together_as_each_alone():
    model, many = trained(), rows(12).view(3, 4, 7)
    with torch.no_grad():
        alone = torch.stack([weights_of(model(each), 0.5) for each in many])
        torch.testing.assert_close(weights_of(model(many), 0.5), alone)


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = WeightingModel(7, seed=3), WeightingModel(7, seed=3), WeightingModel(7, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.first.weight, same.first.weight)
    assert not torch.equal(one.first.weight, other.first.weight)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20), st.floats(0.05, 1.0))
def test_weights_keep_to_the_least_effective_share(logits, share):
    z = torch.tensor(logits, dtype=torch.float64)
    weights = weights_of(z, share)
    assert float(weights.mean()) == pytest.approx(1)
    assert float(effective_share(weights)) >= share - 1e-9
    torch.testing.assert_close(weights_of(z), softmax_weights(z))
    if effective_share(softmax_weights(z)) >= share:
        torch.testing.assert_close(weights, softmax_weights(z))


def test_the_objective_is_least_where_shares_follow_the_slopes():
    """p proportional to exp(s / entropy), against descent from anywhere."""
    slopes, real = rows(1, 5), torch.ones(1, 5, dtype=torch.bool)
    logits = rows(1, 5, seed=2).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        objective(logits, slopes, real, 0.5).backward()
        optimizer.step()
    torch.testing.assert_close(torch.softmax(logits, -1), torch.softmax(slopes / 0.5, -1), atol=1e-3, rtol=0)


def test_without_entropy_the_objective_has_the_gradient_of_the_surrogate():
    slopes, real = rows(1, 5), torch.ones(1, 5, dtype=torch.bool)
    one, other = (rows(1, 5, seed=2).requires_grad_() for _ in range(2))
    objective(one, slopes, real, 0.0).backward()
    surrogate(torch.softmax(other[0], 0), slopes[0], 1.0).backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_batches_of_several_sizes_are_learned_from_together_as_each_alone():
    model = trained()
    sizes, seen, slopes = (3, 5), [rows(3), rows(5, seed=2)], [rows(1, 3)[0], rows(1, 5)[0]]
    padded, found = torch.full((2, 5, 7), 9.0).double(), torch.full((2, 5), 7.0).double()
    real = torch.tensor([[place < size for place in range(5)] for size in sizes])
    for place, (own, slope) in enumerate(zip(seen, slopes, strict=True)):
        padded[place, : len(own)], found[place, : len(own)] = own, slope
    together = objective(model(padded, real), found, real, 0.4)
    alone = [
        objective(model(own)[None], slope[None], torch.ones(1, len(own), dtype=torch.bool), 0.4)
        for own, slope in zip(seen, slopes, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


# What is read


def batch_of(ids: list[list[int]], width: int) -> Batch:
    padded = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return Batch(tuple(range(len(ids))), padded, attention, torch.where(attention.bool(), padded, -100))


def known(vocab: int = 9, k: int = 3) -> Vocabulary:
    return Vocabulary(rows(vocab, k).float(), torch.arange(vocab).float(), torch.full((k,), 0.5), torch.full((k,), 2.0))


def test_what_is_read_is_the_mean_over_the_tokens_without_padding():
    batch, table = batch_of([[1, 2, 4], [5, 6, 7, 8, 3]], 6), known()
    found = read(batch, torch.tensor([1.0, 2.0]), table)
    expected = [(table.vectors[[1, 2, 4]].mean(0) - 0.5) / 2, (table.vectors[[5, 6, 7, 8, 3]].mean(0) - 0.5) / 2]
    torch.testing.assert_close(found.embedding, torch.stack(expected))
    assert found.surprise.tolist() == pytest.approx([3.0, 6.0])  # the first token is not predicted
    assert found.lengths.tolist() == [3, 5]


def test_the_width_of_padding_changes_nothing():
    small, large = (read(batch_of([[1, 2, 4], [5, 6]], width), torch.ones(2), known()) for width in (3, 11))
    for one, other in zip(vars(small).values(), vars(large).values(), strict=True):
        torch.testing.assert_close(one, other)


def test_words_in_random_order_show_as_little_gained_from_context():
    """Same tokens, same surprise; only the loss is higher."""
    readings = Readings(
        torch.zeros(3, 0), torch.tensor([6.0, 6.0, 4.0]), torch.tensor([4.0, 5.5, 2.0]), torch.full((3,), 99.0)
    )
    gain = inputs(readings)[:, 2]
    assert float(gain[0]) == float(gain[2])
    assert float(gain[1]) < float(gain[0])


def test_a_crowd_makes_what_is_read_of_a_sample_independent_of_its_batch():
    readings = Readings(rows(6, 3).float(), torch.rand(6), torch.rand(6), torch.full((6,), 50.0))
    crowd = Readings(rows(4, 3).float(), torch.rand(4), torch.rand(4), torch.full((4,), 50.0))
    alone = Readings(*(value[2:3] for value in vars(readings).values()))
    torch.testing.assert_close(inputs(readings, crowd)[2:3], inputs(alone, crowd))


def test_equal_losses_are_no_division_by_zero():
    readings = Readings(torch.zeros(2, 0), torch.ones(2), torch.full((2,), 3.0), torch.ones(2))
    assert torch.isfinite(inputs(readings)).all()


def test_surprise_is_that_of_smoothed_frequencies_and_wide_vectors_are_projected():
    vectors, surprise = vocabulary(torch.tensor([7, 0, 1]), rows(3, 500), dim=64, seed=0)
    assert vectors.shape == (3, 64)
    torch.testing.assert_close((-surprise).exp(), torch.tensor([8, 1, 2]) / 11)
    narrow, _ = vocabulary(torch.tensor([7, 0, 1]), rows(3, 5), dim=64, seed=0)
    torch.testing.assert_close(narrow, rows(3, 5).float())
    lengths = rows(3, 500).norm(dim=1) / vectors.double().norm(dim=1)
    assert (lengths / lengths.mean() - 1).abs().max() < 0.4


def test_mean_vectors_of_an_empty_row_are_zero():
    empty = Batch((0,), torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), torch.full((1, 2), -100))
    assert torch.equal(mean_vectors(rows(3, 4).float(), empty), torch.zeros(1, 4))

"""CountSketch by circular shift."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from curate.gradients.projection import ProjectionSettings, add_layer, fold, layer_sketch


def sketch(gradients: Tensor, name: str, projection: ProjectionSettings) -> Tensor:
    wide = torch.zeros(len(gradients), 2 * projection.dim)
    add_layer(wide, gradients, layer_sketch(name, gradients.shape[1], projection))
    return fold(wide)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 70), dim=st.integers(1, 20), seed=st.integers(0, 9))
def test_sketch_is_chunks_signed_rolled_and_summed(size: int, dim: int, seed: int) -> None:
    projection = ProjectionSettings(dim=dim, seed=seed)
    gradients = torch.randn(3, size, generator=torch.Generator().manual_seed(seed))
    choices = layer_sketch("layer", size, projection)
    padded = torch.nn.functional.pad(gradients, (0, -size % dim)).view(3, -1, dim)
    expected = torch.zeros(3, dim)
    for chunk in range(padded.shape[1]):
        signed = padded[:, chunk] * choices.signs * choices.chunk_signs[chunk]
        expected += signed.roll(int(choices.shifts[chunk]), dims=1)
    torch.testing.assert_close(sketch(gradients, "layer", projection), expected)


def test_inner_products_are_unbiased_with_the_promised_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randn(2, 500, generator=generator)
    pair[1] += 0.5 * pair[0]
    true = float(pair[0] @ pair[1])
    found = torch.stack(
        [(lambda s: s[0] @ s[1])(sketch(pair, "w", ProjectionSettings(dim=64, seed=seed))) for seed in range(1500)]
    )
    scale = float(pair[0].norm() * pair[1].norm())
    assert abs(float(found.mean()) - true) < 4 * float(found.std()) / 1500**0.5
    assert float(found.var()) < 2 * scale**2 / 64 * 1.2


def test_choices_depend_on_layer_name_and_seed_only() -> None:
    layer_sketch.cache_clear()
    one = layer_sketch("a", 100, ProjectionSettings(dim=16))
    layer_sketch.cache_clear()
    torch.manual_seed(99)
    same = layer_sketch("a", 100, ProjectionSettings(dim=16))
    other_layer = layer_sketch("b", 100, ProjectionSettings(dim=16))
    other_seed = layer_sketch("a", 100, ProjectionSettings(dim=16, seed=1))
    assert torch.equal(one.signs, same.signs)
    assert torch.equal(one.shifts, same.shifts)
    assert not torch.equal(one.shifts, other_layer.shifts)
    assert not torch.equal(one.shifts, other_seed.shifts)


def test_the_choices_of_a_published_seed_never_change() -> None:
    """Stored features can only be compared with new ones while these numbers stay what they are."""
    choices = layer_sketch("model.layers.0.self_attn.q_proj", 40, ProjectionSettings(dim=8))
    assert (choices.signs.tolist(), choices.chunk_signs.tolist(), choices.shifts.tolist()) == GOLDEN


GOLDEN = ([-1, -1, 1, -1, 1, 1, 1, -1], [-1, 1, 1, 1, 1], [7, 5, 2, 0, 2])

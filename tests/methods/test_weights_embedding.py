"""The embedding baseline: LESS's formula on embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from curate.methods.embedding import Embedding, EmbeddingConfig
from curate.methods.less import Less, LessConfig
from tests.methods.toy_pool import ToyPool, dense_tilt, gaussian_pool, pool_weights, unit

torch.set_num_threads(1)


@pytest.mark.parametrize("wanted", [0.2, 0.3, 0.8])
def test_weights_are_the_tilt_of_the_cosine_with_the_mean_unit_embedding(wanted):
    pool = gaussian_pool(50, 6, cuts=(20,))
    means = np.stack([unit(rows).mean(0) for rows in pool.targets.values()])
    expected = dense_tilt((unit(pool.values) @ means.T).max(1), wanted)
    weights = pool_weights(Embedding(EmbeddingConfig(effective_share=wanted)), pool)
    np.testing.assert_allclose(weights, expected, rtol=1e-9, atol=1e-9)


def test_it_is_less_to_the_bit():
    pool = gaussian_pool(40, 5)
    same = pool_weights(Less(LessConfig()), pool)
    assert pool_weights(Embedding(EmbeddingConfig()), pool).tobytes() == same.tobytes()


def test_the_best_of_several_targets_counts():
    values = torch.eye(3)
    weights = pool_weights(Embedding(EmbeddingConfig()), ToyPool(values, {"x": values[:1], "y": values[1:2]}))
    assert weights[0] == pytest.approx(weights[1])
    assert weights[2] < weights[0]

"""Embedding: samples that are about what the target is about."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from curate.methods.less import Less
from curate.types import Section


class EmbeddingConfig(Section):
    """Cosine of the sample's embedding with the target's; the best of several named targets counts."""

    name: Literal["embedding"] = "embedding"
    """Method."""
    effective_share: float = Field(default=0.3, gt=0, le=1)
    """Effective sample size of the weights as a share of the pool: 1 is uniform, small a hard selection."""


class Embedding(Less):
    """score_i = max_j (1/m_j) sum_l cos(e_i, v_jl), weights exp(score / temperature): LESS with embeddings for gradients.

    Symbols: e_i the sample's embedding [k], v_jl that of row l of the m_j rows of target j [k]. The mean of the
    cosines is the product with the target's mean unit embedding.

    Reference: Reimers and Gurevych, 2019, arXiv 1908.10084 (mean-pooled embeddings compared by cosine); Xia et al.,
    2024, arXiv 2402.04333, has it as a baseline.
    """

    Config: ClassVar = EmbeddingConfig
    reads: tuple[str, ...] = ("embeddings",)

    def __init__(self, config: EmbeddingConfig) -> None:
        self.config = config


METHOD = Embedding

"""The `features` section of a pipeline file: one class a kind of feature."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from curate.errors import ConfigError
from curate.gradients.base import ProjectionSettings
from curate.models.base import LayerSettings
from curate.types import Section

DEFAULT = "gradients"


class FeaturesConfig(Section):
    """Settings that all kinds of features share."""

    on_nonfinite: Literal["error", "drop"] | None = None
    """A sample with a loss or feature that is not finite stops the run (`error`) or is set aside with the reason (`drop`); by
    default as `pool.on_bad_row` says."""

    @property
    def needs_model(self) -> bool:
        """Whether the proxy is run to make the feature."""
        return True

    @property
    def encoder(self) -> str | None:
        """The model beside the proxy that reads the texts, if there is one."""
        return None


class ProxyFeaturesConfig(FeaturesConfig):
    """What all kinds have in common for which a model reads the sample."""

    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = 4096
    """Tokens in one batch of the proxy, with padding where the model needs it; part of a result's identity. `auto`: as many as
    fit in half of the free memory, determined once when the proxy is made and kept for the run."""

    def with_budget(self, tokens: int | None) -> Self:
        """The section with what `auto` was found to be."""
        return self if tokens is None else self.model_copy(update={"batch_tokens": tokens})

    @property
    def token_budget(self) -> int:
        """Tokens of a batch. Raises ConfigError while `auto` has not been found."""
        if self.batch_tokens == "auto":
            fix = "Run the proxy stage first."
            raise ConfigError("features.batch_tokens", "auto", "the number determined for it", fix)
        return self.batch_tokens


class GradientsConfig(ProxyFeaturesConfig):
    """The projected gradient of the sample's mean token loss."""

    name: Literal["gradients"] = "gradients"
    """Kind of feature: the gradient of the sample's mean token loss with respect to layers of the proxy."""
    projection: ProjectionSettings = Field(default_factory=ProjectionSettings)
    """How a gradient is projected to `dim` numbers."""
    layers: LayerSettings = Field(default_factory=LayerSettings)
    """Layers whose gradients are used: by default the linear layers of all blocks."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """`adam`: the pool's gradients are turned into Adam's update directions before the projection (LESS), with the moments of
    the proxy's warm-up or of `model.optimizer`; the target's are left as they are."""
    dtype: Literal["float16", "float32", "int8", "bits"] = "float16"
    """Storage format of the numbers, besides a float32 scale for each row: 2 bytes, 4 bytes, 1 byte (error at most 1/254 of the
    row's largest), or the sign alone."""


class LossesConfig(ProxyFeaturesConfig):
    """How well the proxy predicts the sample: its mean token loss in nats and its number of predicted tokens."""

    name: Literal["losses"]
    """Kind of feature: two numbers a sample, from a forward pass."""
    dtype: Literal["float32"] = "float32"
    """Storage format of the numbers."""


class EmbeddingsConfig(ProxyFeaturesConfig):
    """Embedding of the sample: the mean of a model's last hidden states over its tokens."""

    name: Literal["embeddings"]
    """Kind of feature: a vector as wide as the model, from a forward pass."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Local directory or Hub id of another model that embeds the texts, such as a sentence encoder; texts are cut to 512
    tokens (default: the proxy)."""
    dtype: Literal["float16", "float32", "int8", "bits"] = "float16"
    """Storage format of the numbers, as for gradients."""

    @property
    def needs_model(self) -> bool:
        """Whether the proxy is run to make the feature."""
        return self.model is None

    @property
    def encoder(self) -> str | None:
        """The model beside the proxy that reads the texts, if there is one."""
        return self.model


class NgramsConfig(FeaturesConfig):
    """Hashed counts of the sample's words and word pairs; needs no model."""

    name: Literal["ngrams"]
    """Kind of feature: hashed counts of words and word pairs, as in DSIR."""
    dim: int = Field(default=10_000, ge=1, le=1 << 24)
    """Number of hash buckets (k) for words and word pairs."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """Storage format of the numbers, as for gradients."""

    @property
    def needs_model(self) -> bool:
        """Whether the proxy is run to make the feature."""
        return False


KINDS: dict[str, type[FeaturesConfig]] = {
    "gradients": GradientsConfig,
    "losses": LossesConfig,
    "embeddings": EmbeddingsConfig,
    "ngrams": NgramsConfig,
}
"""Kind of feature → its section."""


def _named(section: Any) -> Any:
    """A section that names no kind is one of gradients."""
    return {"name": DEFAULT, **section} if isinstance(section, dict) else section


AnyFeaturesConfig = GradientsConfig | LossesConfig | EmbeddingsConfig | NgramsConfig
FeaturesSection = Annotated[AnyFeaturesConfig, Field(discriminator="name"), BeforeValidator(_named)]
"""The section as a pipeline file has it."""

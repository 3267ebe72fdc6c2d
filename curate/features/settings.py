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
    """What all kinds of feature have in common."""

    on_nonfinite: Literal["error", "drop"] = "error"
    """A sample whose loss or feature is not finite stops the run, or is set aside with its reason."""

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
    """Tokens of one pass of the proxy (padding included, where a model needs any); part of a result's identity. `auto`:
    as many as fit in half of the free memory, found once when the proxy is made and kept for the run."""

    def with_budget(self, tokens: int | None) -> Self:
        """The section with what `auto` was found to be."""
        return self if tokens is None else self.model_copy(update={"batch_tokens": tokens})

    @property
    def token_budget(self) -> int:
        """Tokens of a batch. Raises ConfigError while `auto` has not been found."""
        if self.batch_tokens == "auto":
            fix = "Run the proxy stage first."
            raise ConfigError("features.batch_tokens", "auto", "the number that was found for it", fix)
        return self.batch_tokens


class GradientsConfig(ProxyFeaturesConfig):
    """What the sample would teach the proxy: the gradient of its mean token loss, projected."""

    name: Literal["gradients"] = "gradients"
    """Kind of feature: the gradient of the sample's mean token loss with respect to layers of the proxy."""
    projection: ProjectionSettings = Field(default_factory=ProjectionSettings)
    """How a gradient becomes `dim` numbers."""
    layers: LayerSettings = Field(default_factory=LayerSettings)
    """The layers whose gradients are read: unless something else is said here, the linear layers of all blocks."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """`adam`: the pool's gradients become Adam's update directions before the projection (LESS); the target's stay plain.
    The moments are those of the proxy's warm-up."""
    dtype: Literal["float16", "float32", "int8", "bits"] = "float16"
    """How a number is stored, beside a float32 scale for each row: 2 bytes, 4, 1 (wrong by at most 1/254 of the row's
    largest), or its sign alone."""


class LossesConfig(ProxyFeaturesConfig):
    """How well the proxy predicts the sample: its mean token loss in nats and the number of tokens behind it."""

    name: Literal["losses"]
    """Kind of feature: two numbers a sample, from a forward pass."""
    dtype: Literal["float32"] = "float32"
    """How a number is stored."""


class EmbeddingsConfig(ProxyFeaturesConfig):
    """What the sample is about: the mean of a model's last hidden states over its tokens."""

    name: Literal["embeddings"]
    """Kind of feature: as many numbers as the model is wide, from a forward pass."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """Local directory or Hub id of another model to read the texts, such as a sentence encoder, which cuts them to 512
    tokens; by default the proxy."""
    dtype: Literal["float16", "float32", "int8", "bits"] = "float16"
    """How a number is stored; as for gradients."""

    @property
    def needs_model(self) -> bool:
        """Whether the proxy is run to make the feature."""
        return self.model is None

    @property
    def encoder(self) -> str | None:
        """The model beside the proxy that reads the texts, if there is one."""
        return self.model


class NgramsConfig(FeaturesConfig):
    """Which words the sample is made of: counts of its words and pairs of words, hashed; needs no model."""

    name: Literal["ngrams"]
    """Kind of feature: counts of hashed words and pairs of words, as DSIR takes them."""
    dim: int = Field(default=10_000, ge=1, le=1 << 24)
    """Numbers a sample (k): words and pairs are hashed into so many counters."""
    dtype: Literal["float16", "float32", "int8"] = "float16"
    """How a number is stored; as for gradients."""

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

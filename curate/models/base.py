"""The `model:` part of a pipeline file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from curate.types import Section

PositiveInt = Annotated[int, Field(gt=0)]
LongRows = Literal["cut", "ends", "chunks"]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class LoraSettings(Section):
    """Low-rank adapters; only their parameters are trained and have gradients."""

    rank: PositiveInt = 8
    """Rank of each adapter."""
    alpha: PositiveInt = 16
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    targets: list[str] | None = None
    """Names of the layers that get an adapter (default: the usual ones of the architecture, else all linear layers)."""


class LayerSettings(Section):
    """Layers whose gradients are used: by default the linear layers of all blocks."""

    depth: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the blocks, counted from the last; the backward pass stops at the first of them."""
    modules: list[str] | None = None
    """Only layers with one of these names, such as [o_proj, down_proj]."""
    embeddings: bool = False
    """Also the embedding and the output layer (as one weight where they are tied). Costly: their gradients are as large as the
    vocabulary."""
    warn_below: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of the squared gradient norm of the blocks' matrices below which a run warns that layers are not read."""


class WarmupSettings(Section):
    """A short training of the proxy on a sample of the pool before gradients are read from it.

    AdamW with a linear rise over the first 5 % of the tokens, then a cosine down to 10 % of the learning
    rate. A proxy at random initialisation, or with fresh adapters (one half of them zero), has gradients that
    say little.
    """

    tokens: PositiveInt = 300_000
    """Number of tokens to train on."""
    batch_tokens: PositiveInt = 4096
    """Tokens in one training step, padding included."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Peak learning rate. The default is for a small model trained from scratch; use about 1e-4 with LoRA and 2e-5 for full
    fine-tuning."""
    beta1: Fraction = 0.9
    """Decay of Adam's first moment."""
    beta2: Fraction = 0.95
    """Decay of Adam's second moment."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    checkpoints: PositiveInt = 1
    """Number of evenly spaced checkpoints of the warm-up whose gradients are combined, each weighted by the mean learning rate
    of its span (LESS). Time and disk space of the features grow with it."""

    @model_validator(mode="after")
    def _a_step_in_every_span(self) -> WarmupSettings:
        if self.checkpoints > 1 and self.tokens < self.checkpoints * self.batch_tokens:
            raise ValueError("tokens must be at least checkpoints x batch_tokens, for one step a checkpoint")
        return self


class ModelConfig(Section):
    """The proxy: the model whose losses and gradients are used."""

    name: Annotated[str, Field(min_length=1)]
    """Local directory, Hub id, or GGUF file. With `from_scratch`, a directory with config.json is enough."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; resolved once to a commit, which is recorded."""
    tokenizer: str | None = None
    """Local directory or Hub id of the tokenizer; by default the model's own."""
    from_scratch: bool = False
    """Initialise the weights at random from config.json and the seed; ignore stored weights."""
    max_tokens: PositiveInt = 512
    """Tokens that the model reads at a time; `long_rows` says what becomes of longer rows."""
    long_rows: LongRows = "cut"
    """Of a row longer than `max_tokens`: `cut` reads its beginning, `ends` half from its beginning and half from its end,
    `chunks` all of it, chunk by chunk: its feature is the mean over the chunks, by tokens; its weight is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the weights; auto is bfloat16 on a GPU that has it, float32 otherwise."""
    adapter: str | None = None
    """Trained adapter (PEFT: LoRA, DoRA, rsLoRA) of the model, as a directory or Hub id: it is merged into the weights. `none`:
    an adapter that lies beside the weights is not used."""
    lora: LoraSettings | None = None
    """New adapters to add, or none."""
    warmup: WarmupSettings | None = None
    """Training of the proxy before it is used, or none."""
    optimizer: str | None = None
    """Checkpoint of the training that made these weights, for `features.optimizer: adam` without a warm-up: a local
    directory or file by the Hugging Face Trainer, Accelerate, DeepSpeed or FSDP. Only Adam's moments are read from it."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass instead of keeping its activations: less memory, about a third more time."""
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Attention implementation; architectures without sdpa always use eager."""

    @model_validator(mode="after")
    def _an_adapter_of_trained_weights(self) -> ModelConfig:
        if self.from_scratch and self.adapter not in (None, "none"):
            raise ValueError(
                "`adapter` was trained on the stored weights, and `from_scratch` ignores them: remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_optimizer(self) -> ModelConfig:
        if self.optimizer is not None and (self.warmup is not None or self.from_scratch):
            other = "warmup" if self.warmup is not None else "from_scratch"
            raise ValueError(
                f"`optimizer` is the state of the stored weights, and `{other}` makes new weights: remove one of them"
            )
        return self

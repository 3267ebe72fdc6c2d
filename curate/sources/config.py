"""What a pipeline file says about the pool and the target."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from curate.sources.registry import AUTO, FORMATS
from curate.types import Section


def _known(name: str) -> str:
    """A format that there is. Raises ConfigError if it is another package's and cannot be used."""
    if name == AUTO:
        return name
    if name not in FORMATS:
        *names, last = (repr(each) for each in (AUTO, *FORMATS))
        raise ValueError(f"input should be {', '.join(names)} or {last}")
    FORMATS[name].format()
    return name


def _listed(schema: dict[str, Any]) -> None:
    schema["enum"] = [AUTO, *FORMATS]


KEYS = ("text", "prompt", "completion", "messages", "tools", "chat_template_kwargs")
"""Keys that name columns, in the order in which they are read."""
CHARS = 100_000
"""Characters that are read of a row of which only the beginning counts: more than any model reads at a time."""
LossOn = Literal["all", "last", "no_tool_calls", "no_reasoning"]

FormatName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_listed)]
"""`auto`, or a format by its name."""


class SourceConfig(Section):
    """Where rows come from and which of their columns hold the text."""

    section: ClassVar[str] = "source"

    path: str
    """A file, directory, glob, `save_to_disk` directory, Hub dataset id (`org/name`), or URL (`s3://…`, `hf://datasets/…`)."""
    text: str | None = None
    """Column of plain text. If no column is named, curate takes the first of these that the rows have: `text`, `messages`,
    `conversations`, `prompt` with `completion`."""
    prompt: str | None = None
    """Column of prompts, texts or lists of messages; no loss is computed on them; needs `completion`."""
    completion: str | None = None
    """Column of completions, of the kind that the prompts are; the loss is computed on them; needs `prompt`."""
    messages: str | None = None
    """Column of conversations: lists of messages with `role` and `content` (or `from` and `value`, as ShareGPT has them); the
    loss is computed on what the assistant says."""
    tools: str | None = None
    """Column of the tools that a conversation may call, for the chat template; by default `tools`, if rows of messages have
    it."""
    chat_template_kwargs: str | None = None
    """Column of further arguments for the chat template; by default `chat_template_kwargs`, if rows of messages have it."""
    loss_on: LossOn = "all"
    """What of the assistant's turns takes the loss: `all` of them, the `last` one, all but calls of tools (`no_tool_calls`) or
    all but the reasoning (`no_reasoning`). For `messages`; a message with `weight: 0` or `train: false` takes none anyway."""
    split: str | None = None
    """Split of a Hub dataset or directory, recognised by file names; a Hub dataset's default is `train`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset; resolved once to a commit, which the run records."""
    format: FormatName = AUTO
    """File format; `auto` recognises it by the file name, then by the first bytes. A format that an installed package adds must
    be named."""
    allow_schemes: list[str] = Field(default_factory=list)
    """URL schemes allowed besides local, file, hf, s3, gs, gcs, az, abfs and memory, such as https."""
    max_chars: int | None = Field(default=None, ge=1)
    """Characters of a row that features may read; the row itself is written in full. By default 100,000, and all of them where
    `model.long_rows` is `ends` or `chunks`."""

    @model_validator(mode="after")
    def _one_kind_of_text(self) -> SourceConfig:
        kinds = [self.text is not None, bool(self.prompt or self.completion), self.messages is not None]
        if sum(kinds) > 1 or (self.prompt is None) != (self.completion is None):
            raise ValueError("name the columns of one kind of text: text, or prompt and completion, or messages")
        return self

    @property
    def fields(self) -> dict[str, str]:
        """Which key names which column: `{"text": "body"}`; see `columns.recognised` for those that are not named."""
        pairs = {key: getattr(self, key) for key in KEYS}
        return {key: column for key, column in pairs.items() if column is not None}


class PoolConfig(SourceConfig):
    """The candidate training data."""

    section: ClassVar[str] = "pool"

    shard_rows: int = Field(default=1000, ge=1)
    """Rows in a shard, the unit that is processed, retried and committed."""
    on_bad_row: Literal["error", "drop"] = "error"
    """A row that cannot be read (no text, a conversation that the chat template refuses, no token to predict) stops the run
    (`error`) or is set aside with the reason (`drop`)."""
    max_dropped: float = Field(default=0.05, ge=0, le=1)
    """With `on_bad_row: drop`, the largest share of the rows that may be set aside; more than that stop the run."""


class TargetConfig(SourceConfig):
    """The small trusted set that defines good data."""

    section: ClassVar[str] = "target"

    name: str = "target"
    """Name of this target in reports and columns."""
    max_rows: int | None = Field(default=None, ge=1)
    """Read only the first rows of the target."""

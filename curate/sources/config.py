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


FormatName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_listed)]
"""`auto`, or a format by its name."""


class SourceConfig(Section):
    """Where rows come from and which of their columns hold the text."""

    section: ClassVar[str] = "source"

    path: str
    """A file, directory, glob, `save_to_disk` directory, Hub dataset id (`org/name`), or URL (`s3://…`, `hf://datasets/…`)."""
    text: str | None = None
    """Column of plain text; `text` by default, if no other kind of column is named."""
    prompt: str | None = None
    """Column of prompts; no loss is computed on them; needs `completion`."""
    completion: str | None = None
    """Column of completions; the loss is computed on them; needs `prompt`."""
    messages: str | None = None
    """Column of chat messages (a list of `role` and `content`); the loss is computed on the assistant's tokens."""
    split: str | None = None
    """Split of a Hub dataset or directory, recognised by file names; a Hub dataset's default is `train`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub dataset; resolved once to a commit, which the run records."""
    format: FormatName = AUTO
    """File format; `auto` recognises it by the file name, then by the first bytes. A format that an installed package adds must
    be named."""
    allow_schemes: list[str] = Field(default_factory=list)
    """URL schemes allowed besides local, file, hf, s3, gs, gcs, az, abfs and memory, such as https."""
    max_chars: int = Field(default=100_000, ge=1)
    """Characters of a row that features may read; the row itself is written in full."""

    @model_validator(mode="before")
    @classmethod
    def _text_by_default(cls, data: Any) -> Any:
        named = ("text", "prompt", "completion", "messages")
        if isinstance(data, dict) and all(data.get(name) is None for name in named):
            return {**data, "text": "text"}
        return data

    @model_validator(mode="after")
    def _one_kind_of_text(self) -> SourceConfig:
        kinds = [self.text is not None, bool(self.prompt or self.completion), self.messages is not None]
        if sum(kinds) != 1 or (self.prompt is None) != (self.completion is None):
            raise ValueError("name the columns of one kind of text: text, or prompt and completion, or messages")
        return self

    @property
    def fields(self) -> dict[str, str]:
        """Which key names which column: `{"text": "body"}`."""
        pairs = {key: getattr(self, key) for key in ("text", "prompt", "completion", "messages")}
        return {key: column for key, column in pairs.items() if column is not None}


class PoolConfig(SourceConfig):
    """The candidate training data."""

    section: ClassVar[str] = "pool"

    shard_rows: int = Field(default=1000, ge=1)
    """Rows in a shard, the unit that is processed, retried and committed."""
    on_bad_row: Literal["error", "drop"] = "error"
    """A row without usable text stops the run (`error`) or is set aside with the reason (`drop`)."""


class TargetConfig(SourceConfig):
    """The small trusted set that defines good data."""

    section: ClassVar[str] = "target"

    name: str = "target"
    """Name of this target in reports and columns."""
    max_rows: int | None = Field(default=None, ge=1)
    """Read only the first rows of the target."""

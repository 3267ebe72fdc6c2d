"""The `output:` section of a pipeline file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pyarrow as pa
from pydantic import Field, model_validator

from curate.errors import ConfigError
from curate.types import Section

RULES = ("keep", "tokens", "threshold")
"""The three ways to filter; a filtered output names exactly one."""

ADJUSTED = ("cap", "balance")
"""What changes the weights that are written."""


class BalanceConfig(Section):
    """Bounds on the shares of groups of rows, such as domains, languages or licences."""

    column: str = Field(min_length=1)
    """Column of the pool whose values are the groups."""
    floors: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Smallest share of each group."""
    caps: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Largest share of each group."""


class OutputConfig(Section):
    """What the run writes: every row with its weight, the heaviest rows, or rows drawn by weight."""

    mode: Literal["weighted", "filtered", "resampled"] = "weighted"
    """weighted: every row and its weight; filtered: the heaviest rows; resampled: rows drawn by weight."""
    keep: float | None = Field(default=None, gt=0, le=1)
    """Filtered: fraction of the rows to keep, those of largest weight."""
    tokens: int | float | None = Field(default=None, ge=1)
    """Filtered: a token budget; the heaviest rows are kept until it is used up."""
    threshold: float | None = Field(default=None, ge=0)
    """Filtered: keep rows whose weight is at least this."""
    rows: int | None = Field(default=None, ge=1, le=2**32)
    """Resampled: number of rows to draw."""
    cap: float | None = Field(default=None, ge=1)
    """Weighted, resampled: largest weight of a row; what is cut off is shared among the other rows."""
    balance: BalanceConfig | None = None
    """Floors and caps on the shares of groups: shares of the weight (after the cap), or, filtered, of the rows or tokens kept."""
    hard: bool = False
    """Filtered: write weight 1 for every kept row instead of the renormalised weight."""
    weight_column: str = Field(default="weight", min_length=1)
    """Name of the column that holds the weight."""
    token_weight_column: str = Field(default="token_weight", min_length=1)
    """Name of the column that holds a row's token weights, where the method weighs tokens: a number for each token of the
    proxy's tokenizer, 0 where no loss is computed."""

    @model_validator(mode="after")
    def _settings_fit_the_mode(self) -> Self:
        given = [name for name in (*RULES, "rows", "hard", *ADJUSTED) if _given(getattr(self, name))]
        allowed = {"weighted": ADJUSTED, "filtered": (*RULES, "hard", "balance"), "resampled": ("rows", *ADJUSTED)}
        for name in given:
            if name not in allowed[self.mode]:
                raise ValueError(f"{name} has no meaning with mode: {self.mode}; remove it")
        if self.balance is not None and self.threshold is not None:
            raise ValueError(
                "balance cannot be met with a threshold, which fixes the rows that are kept: use keep or tokens"
            )
        if self.mode == "filtered" and len([name for name in given if name in RULES]) != 1:
            raise ValueError("mode: filtered needs exactly one of keep, tokens, threshold")
        if self.token_weight_column == self.weight_column:
            raise ValueError("token_weight_column and weight_column have the same name")
        if self.mode == "resampled" and self.rows is None:
            raise ValueError("mode: resampled needs rows, the number of rows to draw")
        return self

    @property
    def rule(self) -> str | None:
        """The selection in words; None where every row is written."""
        if self.keep is not None:
            return f"the heaviest {self.keep:.6g} of the rows"
        if self.tokens is not None:
            return f"the heaviest rows within {self.tokens:.12g} tokens"
        if self.threshold is not None:
            return f"rows of weight {self.threshold:.6g} or more"
        return f"{self.rows} rows drawn in proportion to their weight" if self.rows is not None else None

    @property
    def normalisation(self) -> str:
        """What the weights of the rows written add up to, in words."""
        if self.mode == "resampled":
            return "none: repetition is the weight"
        return "every row written weighs 1" if self.hard else "mean 1 over the rows written"


def _given(value: object) -> bool:
    return value is not None and value is not False  # 0.0 is a threshold, although it equals False


def weight_columns(config: OutputConfig, *, token_level: bool) -> dict[str, str]:
    """Columns of weights beside the pool's: the key that names each, and the name; a resampled dataset has none."""
    keys = ("weight_column", "token_weight_column") if token_level else ("weight_column",)
    return {} if config.mode == "resampled" else {key: getattr(config, key) for key in keys}


def check_collision(schema: pa.Schema, config: OutputConfig, *, token_level: bool = False) -> None:
    """Refuse a pool that already has a column of a name that weights would get.

    Raises:
        ConfigError: the name is taken; the message suggests one that is free.
    """
    for key, name in weight_columns(config, token_level=token_level).items():
        if name in schema.names:
            free = free_name(f"curate_{key.removesuffix('_column')}", schema.names)
            raise ConfigError(
                f"output.{key}",
                f"{name!r}, which is already a column of the pool",
                "a name no column of the pool has",
                f"Set output.{key}: {free}.",
            )


def check_balance(schema: pa.Schema, config: OutputConfig) -> None:
    """Refuse to balance by a column that the pool does not have. Raises ConfigError."""
    if config.balance is not None and config.balance.column not in schema.names:
        raise ConfigError(
            "output.balance.column",
            repr(config.balance.column),
            f"a column of the pool: {', '.join(schema.names)}",
            "Correct it.",
        )


def free_name(name: str, taken: list[str]) -> str:
    """The name itself, or the first of `name_2`, `name_3`, ... that is not taken."""
    names = [name, *(f"{name}_{n}" for n in range(2, len(taken) + 3))]
    return next(candidate for candidate in names if candidate not in taken)

"""Short name → exporter: what each trainer can honour of a weight, and what it cannot. Installed packages may add some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from curate.errors import ConfigError
from curate.plugins.component import Component
from curate.plugins.registry import Registry

if TYPE_CHECKING:
    from curate.exports.base import Exporter, Whole


@dataclass(frozen=True)
class Entry(Component):
    """One trainer or reader.

    Another package provides one by an entry point of the group `curate.exports` that names such a line.

    Attributes:
        writes: the files.
        honours: what becomes of the weights where the export is used as it is meant.
        beware: what the trainer does not do.
    """

    kind: ClassVar[str] = "export"

    writes: str
    honours: str
    beware: str

    @classmethod
    def blank(cls, problem: str) -> dict[str, Any]:
        """No word about what it does."""
        return {"writes": f"Cannot be used: {problem}", "honours": "-", "beware": "-"}

    def exporter(self) -> type[Exporter]:
        """The class that writes for it. Raises ConfigError if another package's cannot be used."""
        return self.attribute("EXPORTER")  # pyright: ignore[reportReturnType]

    def made(self, whole: Whole) -> Exporter:
        """The exporter of a dataset; another package's is held to what ours promise. Raises ConfigError."""
        if not self.outside:
            return self.exporter()(whole)
        from curate.exports.guarded import GuardedExporter

        return GuardedExporter(self, whole)  # pyright: ignore[reportReturnType]


EXPORTERS = Registry(
    "curate.exports",
    Entry,
    (
        Entry(
            "hf",
            "curate.exports.hf",
            "Parquet, all columns",
            "anything that reads the column: `WeightedTrainer`, `curate.WeightedSampler`, your own loop",
            "transformers' Trainer drops the column",
        ),
        Entry(
            "trl",
            "curate.exports.trl",
            "Parquet: text, prompt and completion or messages, and `weight`; ids, labels and `token_weight` for tokens",
            "`WeightedTrainer` mixed into SFTTrainer: the loss; SFTTrainer alone: labels mask tokens of weight below 0.5",
            "SFTTrainer alone drops `weight` and `token_weight`; packing drops them in any trainer",
        ),
        Entry(
            "ms-swift",
            "curate.exports.ms_swift",
            "JSON Lines of messages with `loss_scale`, `swift.yaml`",
            "the loss of each of the assistant's messages",
            "needs `is_binary_loss_scale: false`, as in `swift.yaml`; the token that ends a turn has weight 1; no token weights",
        ),
        Entry(
            "llamafactory",
            "curate.exports.llamafactory",
            "JSON Lines of messages with `loss_weight`, `dataset_info.yaml`",
            "v1: the loss, relative to the other rows of the micro-batch",
            "v1 divides by the weights of the micro-batch: a row alone in it has weight 1; v0 drops them; no token weights",
        ),
        Entry(
            "axolotl",
            "curate.exports.axolotl",
            "Parquet with each row repeated by its weight, or ids and labels that mask tokens; `axolotl.yaml`",
            "sampling: a row is repeated by its weight, rounded up or down",
            "no weights in the loss: rows of weight below 1 occur once or never; tokens of weight below 0.5 are masked",
        ),
        Entry(
            "megatron",
            "curate.exports.megatron",
            "token ids as .bin and .idx, eight buckets for each doubling of the weight, `blend.txt`",
            "sampling: a token is drawn in proportion to its bucket's weight, within 10 % of its row's",
            "no weights in the loss; the loss includes prompts; no token weights",
        ),
        Entry(
            "mosaic",
            "curate.exports.mosaic",
            "MDS streams, eight buckets for each doubling of the weight, `streams.yaml`",
            "sampling: a bucket is repeated in an epoch by its weight, within 10 % of a row's",
            "the column `weight` is not used; a stream has a whole number of rows in an epoch; no token weights",
        ),
        Entry(
            "jsonl",
            "curate.exports.jsonl",
            "JSON Lines, all columns",
            "anything that reads the key `weight`",
            "no trainer uses the key by itself",
        ),
        Entry(
            "sampler",
            "curate.exports.sampler",
            "Parquet, one configuration a bucket, eight buckets for each doubling of the weight; `sampling.json`",
            "sampling with `datasets.interleave_datasets`, within 10 % of a row's weight",
            "no weights in the loss; token weights are not used",
        ),
    ),
)


def find(name: str) -> Entry:
    """The entry of a name. Raises ConfigError if there is none."""
    if name not in EXPORTERS:
        raise ConfigError("--to", repr(name), f"one of {', '.join(EXPORTERS)}", "Correct it.")
    return EXPORTERS[name]

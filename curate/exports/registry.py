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
            "whatever reads the column: `WeightedTrainer`, `curate.WeightedSampler`, your own loop",
            "transformers' Trainer drops the column unread",
        ),
        Entry(
            "trl",
            "curate.exports.trl",
            "Parquet: text, prompt and completion or messages, and `weight`; ids, labels and `token_weight` for tokens",
            "`WeightedTrainer` mixed into SFTTrainer: the loss; SFTTrainer alone: labels as a mask of tokens, from 0.5 up",
            "SFTTrainer alone drops `weight` and `token_weight`; packing drops them for everyone",
        ),
        Entry(
            "ms-swift",
            "curate.exports.ms_swift",
            "JSON Lines of messages with `loss_scale`, `swift.yaml`",
            "the loss, for every message of the assistant",
            "needs `is_binary_loss_scale: false`, as in `swift.yaml`; the token that ends a turn keeps 1; no weights of tokens",
        ),
        Entry(
            "llamafactory",
            "curate.exports.llamafactory",
            "JSON Lines of messages with `loss_weight`, `dataset_info.yaml`",
            "v1: the loss, among the rows of one micro-batch",
            "v1 divides by the weights of the micro-batch, so one row alone always counts 1; v0 drops them; no weights of tokens",
        ),
        Entry(
            "axolotl",
            "curate.exports.axolotl",
            "Parquet with rows as often as they weigh, or ids and labels that mask tokens; `axolotl.yaml`",
            "sampling: a row comes floor or ceil of its weight times",
            "no weights in the loss: rows below 1 come once or never; weights of tokens become a mask, from 0.5 up",
        ),
        Entry(
            "megatron",
            "curate.exports.megatron",
            "token ids as .bin and .idx, eight buckets an octave of weight, `blend.txt`",
            "sampling: a token is drawn as its bucket weighs, within a tenth of its own",
            "no weights in the loss; prompts take a loss too; no weights of tokens",
        ),
        Entry(
            "mosaic",
            "curate.exports.mosaic",
            "MDS streams, eight buckets an octave of weight, `streams.yaml`",
            "sampling: an epoch repeats a bucket as it weighs, within a tenth of a row's own",
            "`weight` rides along unread; a stream has a whole number of rows, the fraction is cut; no weights of tokens",
        ),
        Entry(
            "jsonl",
            "curate.exports.jsonl",
            "JSON Lines, all columns",
            "whatever reads the key `weight`",
            "nothing by itself",
        ),
        Entry(
            "sampler",
            "curate.exports.sampler",
            "Parquet, a configuration for each of eight buckets an octave of weight, `sampling.json`",
            "sampling with `datasets.interleave_datasets`, within a tenth of a row's own weight",
            "no weights in the loss; weights of tokens ride along unread",
        ),
    ),
)


def find(name: str) -> Entry:
    """The entry of a name. Raises ConfigError if there is none."""
    if name not in EXPORTERS:
        raise ConfigError("--to", repr(name), f"one of {', '.join(EXPORTERS)}", "Correct it.")
    return EXPORTERS[name]

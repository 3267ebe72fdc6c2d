"""Short name → exporter: what each trainer can honour of a weight, and what it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from curate.errors import ConfigError
from curate.exports.base import Exporter


@dataclass(frozen=True)
class Entry:
    """One trainer or reader."""

    name: str
    module: str
    writes: str
    honours: str
    """What becomes of the weights where the export is used as it is meant."""
    beware: str
    """What the trainer does not do."""

    def exporter(self) -> type[Exporter]:
        """The class that writes for it."""
        return import_module(f"curate.exports.{self.module}").EXPORTER


EXPORTERS = {
    entry.name: entry
    for entry in (
        Entry(
            "hf",
            "hf",
            "Parquet, all columns",
            "whatever reads the column: `WeightedTrainer`, `curate.WeightedSampler`, your own loop",
            "transformers' Trainer drops the column unread",
        ),
        Entry(
            "trl",
            "trl",
            "Parquet: text, prompt and completion or messages, and `weight`; ids, labels and `token_weight` for tokens",
            "`WeightedTrainer` mixed into SFTTrainer: the loss; SFTTrainer alone: labels as a mask of tokens, from 0.5 up",
            "SFTTrainer alone drops `weight` and `token_weight`; packing drops them for everyone",
        ),
        Entry(
            "ms-swift",
            "ms_swift",
            "JSON Lines of messages with `loss_scale`, `swift.yaml`",
            "the loss, for every message of the assistant",
            "needs `is_binary_loss_scale: false`, as in `swift.yaml`; the token that ends a turn keeps 1; no weights of tokens",
        ),
        Entry(
            "llamafactory",
            "llamafactory",
            "JSON Lines of messages with `loss_weight`, `dataset_info.yaml`",
            "v1: the loss, among the rows of one micro-batch",
            "v1 divides by the weights of the micro-batch, so one row alone always counts 1; v0 drops them; no weights of tokens",
        ),
        Entry(
            "axolotl",
            "axolotl",
            "Parquet with rows as often as they weigh, or ids and labels that mask tokens; `axolotl.yaml`",
            "sampling: a row comes floor or ceil of its weight times",
            "no weights in the loss: rows below 1 come once or never; weights of tokens become a mask, from 0.5 up",
        ),
        Entry(
            "megatron",
            "megatron",
            "token ids as .bin and .idx, eight buckets an octave of weight, `blend.txt`",
            "sampling: a token is drawn as its bucket weighs, within a tenth of its own",
            "no weights in the loss; prompts take a loss too; no weights of tokens",
        ),
        Entry(
            "mosaic",
            "mosaic",
            "MDS streams, eight buckets an octave of weight, `streams.yaml`",
            "sampling: an epoch repeats a bucket as it weighs, within a tenth of a row's own",
            "`weight` rides along unread; a stream has a whole number of rows, the fraction is cut; no weights of tokens",
        ),
        Entry("jsonl", "jsonl", "JSON Lines, all columns", "whatever reads the key `weight`", "nothing by itself"),
        Entry(
            "sampler",
            "sampler",
            "Parquet, a configuration for each of eight buckets an octave of weight, `sampling.json`",
            "sampling with `datasets.interleave_datasets`, within a tenth of a row's own weight",
            "no weights in the loss; weights of tokens ride along unread",
        ),
    )
}


def find(name: str) -> Entry:
    """The entry of a name. Raises ConfigError if there is none."""
    if name not in EXPORTERS:
        raise ConfigError("--to", repr(name), f"one of {', '.join(EXPORTERS)}", "Correct it.")
    return EXPORTERS[name]

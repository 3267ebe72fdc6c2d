"""Weights into the loss of transformers' Trainer and of TRL's SFTTrainer, which know none: `WeightedTrainer`.

    class Weighted(WeightedTrainer, Trainer): ...

Neither library is imported here: the mixin goes before whichever trainer is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import ConfigError

FACTORS = "loss_factors"
"""Key of a batch: factor of the loss of every token, aligned with `labels`."""
IGNORED = -100


def weighted_loss(logits: Tensor, labels: Tensor, factors: Tensor, count: Tensor | int) -> Tensor:
    """L = Σ_i Σ_t f_it l_it / N, with l_it the loss of token t of row i, and f_it its factor: its row's weight, or its own.

    N counts tokens and not weights, and all that one optimizer step takes: over its micro-batches and processes. So the
    gradient is a sum over rows, each f times its own, whatever rows it shares a batch with, and accumulated it is that of
    one large batch. Dividing by Σ f would be biased: in a micro-batch of one row the weight would cancel. Weights have a
    mean of 1, so steps keep their size on average, and with weights of 1 this is the loss of the plain trainer.

    Args:
        logits: [b, t, v], any float type; the softmax is in float32.
        labels: aligned with the tokens, not shifted; -100 where no loss is taken, int64 [b, t].
        factors: of the loss of each token, float [b, t].
        count: N.

    Returns:
        The loss, float32, a scalar.
    """
    shifted, targets = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    losses = functional.cross_entropy(shifted.float(), targets, ignore_index=IGNORED, reduction="none")
    return (losses * factors[:, 1:].flatten()).sum() / torch.as_tensor(count).clamp(min=1)


@dataclass
class WeightedCollator:
    """A collator whose batches carry the factors of their tokens, laid out as it laid the tokens out.

    Attributes:
        collator: pads rows or joins them without padding; truncates nothing.
        weight: column of the weight of a row.
        token_weight: column of the weights of its tokens, which takes precedence: a row's weight is their mean.
    """

    collator: Callable[[list[dict[str, Any]]], Any]
    weight: str
    token_weight: str

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Collate rows; those without a weight column give a batch without factors."""
        own = (self.weight, self.token_weight)
        batch = self.collator([{key: value for key, value in row.items() if key not in own} for row in rows])
        weighed = [row for row in rows if any(name in row for name in own)]
        if weighed and len(weighed) != len(rows):
            found = f"{len(weighed)} of {len(rows)} rows with a weight"
            raise ConfigError("batch", found, "a weight in every row or in none", "Give each data set the column.")
        if weighed:
            batch[FACTORS] = laid_out([self._factors(row) for row in rows], batch)
        return batch

    def _factors(self, row: Mapping[str, Any]) -> Tensor:
        """Factors of a row's tokens, float32 [t]; one for all of them, [], where the row is not tokenised yet."""
        tokens = len(row["input_ids"]) if "input_ids" in row else None
        if self.token_weight not in row:
            weight = torch.as_tensor(row[self.weight], dtype=torch.float32)
            return weight if tokens is None else weight.expand(tokens)
        own = torch.as_tensor(row[self.token_weight], dtype=torch.float32)
        if tokens is None or len(own) < tokens:
            found = f"{len(own)} weights for {'text' if tokens is None else f'{tokens} tokens'}"
            raise ConfigError(
                self.token_weight, found, "a weight for each of a row's input_ids", "Export it with --to trl."
            )
        return own[:tokens]  # the trainer may have cut the row at its max_length


def laid_out(factors: Sequence[Tensor], batch: Mapping[str, Tensor]) -> Tensor:
    """Factors where the collator put the tokens, 0 on padding.

    Args:
        factors: of each row's tokens, [t_i], or one for a whole row, [].
        batch: `input_ids` [b, t], with `attention_mask` if rows are padded on the left; or all rows in one, [1, t].

    Returns:
        float32 [b, t].

    Raises:
        ConfigError: the batch has other tokens than the rows.
    """
    ids, out = batch["input_ids"], torch.zeros(batch["input_ids"].shape)
    if len(ids) == len(factors):
        lengths = torch.tensor([len(own) if own.dim() else ids.shape[1] for own in factors])
        taken = torch.arange(ids.shape[1]) < lengths[:, None]  # on the right unless a mask says otherwise
        mask = batch["attention_mask"].bool().cpu() if "attention_mask" in batch else taken
        for row, own in enumerate(factors):
            if own.dim() and int(mask[row].sum()) != len(own):
                raise _other_tokens(int(mask[row].sum()), len(own))
            out[row, mask[row]] = own
    elif len(ids) == 1 and all(own.dim() for own in factors):
        flat = torch.cat([*factors])
        if len(flat) > ids.shape[1]:
            raise _other_tokens(ids.shape[1], len(flat))
        out[0, : len(flat)] = flat
    else:
        raise _other_tokens(len(ids), len(factors))
    return out


class WeightedTrainer:
    """Mixin for transformers' Trainer and TRL's SFTTrainer: rows are weighted by a column of the training data.

    List it before the trainer among the base classes. The loss is `weighted_loss`, over all micro-batches and processes of a
    step. Padded and padding-free batches work, packed ones do not: packing drops every column. Evaluation is not weighted.

    Memory is that of transformers' own loss, with all logits of a micro-batch; TRL's fused output layer is not used.

    Attributes:
        weight_column: column of a row's weight; set it in a subclass if yours has another name.
        token_weight_column: column of its token weights, one for each of `input_ids`; used instead if present.

    Raises:
        ConfigError: packing, a loss of another kind, several GPUs in one process, or batches without weights.
    """

    weight_column = "weight"
    token_weight_column = "token_weight"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        _check(trainer)
        trainer.model_accepts_loss_kwargs = True  # so that the tokens of a step are counted; the model is not told
        trainer.data_collator = WeightedCollator(trainer.data_collator, self.weight_column, self.token_weight_column)

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the weights among the columns that are not removed as unused."""
        trainer: Any = super()
        trainer._set_signature_columns_if_needed()
        columns = self._signature_columns
        own = (self.weight_column, self.token_weight_column)
        self._signature_columns = [*columns, *(name for name in own if name not in columns)]

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted loss of a micro-batch; the trainer's own one in evaluation."""
        trainer: Any = self
        factors = inputs.pop(FACTORS, None)
        if not model.training:
            parent: Any = super()
            return parent.compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        if factors is None or "shift_labels" in inputs:
            found = f"columns {', '.join(inputs)}"
            fix = f"Keep {self.weight_column} or {self.token_weight_column} in the training data, tokenised or not."
            raise ConfigError("batch", found, "labels and a weight", fix)
        labels = inputs["labels"]
        outputs = model(**{key: value for key, value in inputs.items() if key != "labels"}, use_cache=False)
        if getattr(outputs, "aux_loss", None) is not None:
            fix = "Set output_router_logits to false in the model's config."
            raise ConfigError("model", "a loss of its router", "a model whose only loss is that of its tokens", fix)
        count = (labels[:, 1:] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = weighted_loss(outputs.logits, labels, factors, count)
        if num_items_in_batch is not None and trainer.args.average_tokens_across_devices:
            loss = loss * (
                trainer.accelerator.num_processes // trainer.get_tp_size()
            )  # gradients are averaged over them
        return (loss, outputs) if return_outputs else loss


def _check(trainer: Any) -> None:
    """Refuse settings under which weights would be lost. Raises ConfigError."""
    settings, columns = trainer.args, getattr(trainer.train_dataset, "column_names", None) or []
    cut = getattr(settings, "truncation_mode", "keep_start") != "keep_start"
    wrong = {
        "packing": bool(getattr(settings, "packing", False)),
        "loss_type": getattr(settings, "loss_type", "nll") != "nll",
        "label_smoothing_factor": trainer.label_smoother is not None,
        "compute_loss_func": trainer.compute_loss_func is not None,
        "truncation_mode": cut and trainer.token_weight_column in columns,
        "several GPUs in one process": settings.n_gpu > 1,
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        fix = "Turn it off: padding_free does without padding too, torchrun starts a process a GPU."
        raise ConfigError("WeightedTrainer", ", ".join(found), "a loss that weights can reach", fix)


def _other_tokens(found: int, expected: int) -> ConfigError:
    fix = "Use a collator that pads or joins rows, and truncates none."
    return ConfigError("batch", f"{found} tokens or rows", f"the {expected} of the rows it was made from", fix)

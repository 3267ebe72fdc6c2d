"""Selection inside the training step of Hugging Face's `Trainer`, and of trainers made from it, such as TRL's `SFTTrainer`.

    class Selecting(SelectingTrainer, Trainer): ...

    trainer = Selecting(model=model, args=args, train_dataset=pool, ...)
    trainer.select(target_dataset)
    trainer.train()

Nothing of transformers is imported here: the mixin stands before a class that the user brings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from curate.errors import ConfigError
from curate.trainers.selector import METHOD, Selector


class SelectingTrainer:
    """Mixin for trainers with `compute_loss`: samples are selected from each batch of the training data loader.

    With gradient accumulation and under DDP, samples are selected from each batch separately. The logged loss is that of the
    selected samples. Evaluation is the trainer's own. Under automatic mixed precision the batch runs in the type of the
    parameters.
    """

    _selector: Selector | None = None
    _selection: tuple[Any, Mapping[str, Any], bool] | None = None

    def select(
        self, targets: Any, *, method: Mapping[str, Any] = METHOD, batch_size: int | None = None, pack: bool = False
    ) -> None:
        """Select from each batch for a target.

        Args:
            targets: the target, a dataset with the same columns and tokenisation as the training data.
            method: a `method` section as in a pipeline file.
            batch_size: rows of the target that its gradient is computed from each time (default: the trainer's batch size).
            pack: run rows without padding, where the model supports it.
        """
        size = batch_size or self.args.train_batch_size  # pyright: ignore[reportAttributeAccessIssue]
        collate = self.data_collator  # pyright: ignore[reportAttributeAccessIssue]
        loader = DataLoader(targets, batch_size=size, shuffle=True, collate_fn=collate)
        self._selection, self._selector = (loader, method, pack), None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of what is chosen; while the model is evaluated, the trainer's own."""
        if not model.training:
            return super().compute_loss(  # pyright: ignore[reportAttributeAccessIssue]
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        self.loss_is_scaled_for_ga = (
            False  # a mean over the batch: the trainer divides it by the batches that it adds up
        )
        loss = self.selector(model).loss(inputs)
        return (loss, {"loss": loss.detach()}) if return_outputs else loss

    def selector(self, model: Any) -> Selector:
        """What chooses; made at the first step, when the trainer has its optimizer. Raises ConfigError."""
        if self._selector is None:
            if self._selection is None:
                raise ConfigError("trainer", "no target", "a call of select(...) before train()", "Call it.")
            loader, method, pack = self._selection
            optimizer = self.optimizer  # pyright: ignore[reportAttributeAccessIssue]
            self._selector = Selector(model, optimizer, loader, method=method, pack=pack)
        return self._selector

"""ms-swift (4.2 and later): `loss_scale` in every message of the assistant.

The loss is the sum of loss_scale times the token losses over the number of tokens that take one, so the weight reaches the
gradient as it is; the token that ends a turn keeps 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.exports.base import Made, text_file
from curate.exports.chat import Chat
from curate.storage.atomic import Part

ARGUMENTS = """\
# swift sft --config swift.yaml --model ... (in this directory)
dataset:
{files}
# weights are no mask: without this they are rounded to 0 and 1
is_binary_loss_scale: false
loss_scale: default
"""


class MsSwift(Chat):
    """`{"messages": [{"role": "assistant", "content": ..., "loss_scale": 0.83}]}`."""

    NAME = "ms-swift"

    def turn(self, turn: dict[str, Any], weight: float) -> dict[str, Any]:
        """The turn, and the weight if the assistant speaks."""
        weighs = turn["role"] == "assistant" and self.whole.layout.weight is not None
        return {**turn, "loss_scale": weight} if weighs else turn

    def close(self, made: Sequence[Made], folder: Path) -> list[Part]:
        """The arguments that name the files."""
        files = [f"  - {part.path.relative_to(folder)}" for each in made for part in each.parts]
        return [text_file(folder / "swift.yaml", ARGUMENTS.format(files="\n".join(files)))]


EXPORTER = MsSwift

"""What a model may be trained on when datasets are compared."""

from __future__ import annotations

from typing import Literal, get_args

Learned = Literal["weighted", "filtered", "resampled"]
"""Uses of learned weights."""
Control = Literal["uniform", "random", "mixing", "clean"]
"""What learned weights are compared with."""
OF_A_RUN: tuple[Learned, ...] = get_args(Learned)
CONTROLS: tuple[Control, ...] = get_args(Control)
Use = Control | Learned
"""What an arm trains on; see `evaluation.arms`."""

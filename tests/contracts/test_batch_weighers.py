"""Every method of the registry that has the model in the loop, or may have, under the battery of `curate.testing`."""

from __future__ import annotations

from typing import Any

from curate.methods.registry import METHODS, Entry
from curate.testing import BatchWeigherContract
from curate.testing.regression import RATE

START = {"loop": {"start": 3}}
"""So few steps on everything that interruptions lie on either side of the first choice."""
EPISODE = {"start": 0.0, "steps": 4, "every": 7, "penalty": 0.5, "learning_rate": RATE}
"""So short that a few lie on either side of every interruption."""
PHASE = {"stages": 40, "every": 3, "updates": 1, "repeats": 4, "width": 16, "layers": 1}
"""Without a first stage to speak of, and phases as short."""
ONCE = {"start": 0.0, "steps": 300, "learning_rate": RATE}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "bds": {
        "defaults": {"loop": {}},
        "sigmoid": {"loop": {"logits": {"map": "sigmoid"}}},
        "adam": {"loop": {"logits": {"step": "adam", "rate": 0.05}}},
        "sgd": {"loop": {"logits": {"step": "sgd", "rate": 2.0}}},
        "rising penalty": {"loop": {"penalty": 4.0, "penalty_start": 0.5}},
        "single": {"loop": {"algorithm": "single"}},
    },
    "bmo": {
        "defaults": {"loop": {}},
        "zero": {"loop": {"reference": "zero", "temperature": 1.0}},
        "sums": {"loop": {"likelihood": "sum"}},
    },
    "blade": {
        "samples": {"keep": 0.5, "loop": EPISODE},
        "tokens": {"keep": 0.5, "unit": "token", "loop": EPISODE},
        "target alone": {"keep": 0.5, "loop": {**EPISODE, "penalty": 0.0}},
        "memory": {"keep": 0.5, "loop": {**EPISODE, "memory": 0.3}},
    },
    "dwm": {
        "phases": {"loop": PHASE},
        "stages": {"loop": {**PHASE, "every": None, "updates": 3}},
        "as published": {"loop": {**PHASE, "replay": 1, "repeats": 1, "updates": 2, "company": 0}},
    },
    "rho_loss": {"once": {"keep": 0.5, "loop": ONCE}},
    "rho1": {"once": {"keep": 0.5, "loop": ONCE}},
    "filter_then_weight": {
        "defaults": START,
        "filter alone": {**START, "shrink": 1.0},
        "weights as solved": {**START, "shrink": 0.0},
        "factored": {"loop": {"start": 3, "metric": "factored"}},
    },
    "greats": {"defaults": START},
    "grad_match": {"defaults": START},
    "tracin": {"defaults": START},
    "max_loss": {"defaults": START},
    "grad_norm": {"defaults": START},
}
"""Settings with which whatever a method does from time to time happens within a few steps."""
UNTARGETED = {"bds": ("single",), "bmo": ("zero",), "max_loss": ("defaults",), "grad_norm": ("defaults",)}
"""What goes by the loss alone, which here happens to be right and in general is not, and controls without a target."""


def battery(entry: Entry) -> type[BatchWeigherContract]:
    own = {"variants": VARIANTS.get(entry.name, {"defaults": {}}), "untargeted": UNTARGETED.get(entry.name, ())}
    return type(f"Test_{entry.name}", (BatchWeigherContract,), {"entry": entry, **own})


for entry in METHODS.own.values():
    if hasattr(entry.method(), "batch_weigher"):
        globals()[f"Test_{entry.name}"] = battery(entry)

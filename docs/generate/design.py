"""The stages and the floors of the packages, as the code has them."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from docs.generate.tables import table

ROOT = Path(__file__).parents[2]


def stages() -> str:
    """The stages of a batch run, in order."""
    from curate import stages

    return _stages(stages.STAGES)


def online_stages() -> str:
    """The stages of online mode, in order."""
    from curate.online import stages

    return _stages(stages.STAGES)


def floors() -> str:
    """The packages, floor by floor, from the import contract."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    return "\n".join(["```text", *(floor.strip("()") for floor in contract["layers"]), "```"])


def _stages(stages: Mapping) -> str:
    rows = (
        (f"`{stage.name}`", stage.scope.value, ", ".join(f"`{name}`" for name in stage.reads) or "-", _does(stage))
        for stage in stages.values()
    )
    return table(("stage", "a task for", "may stand on", "does"), rows)


def _does(stage: object) -> str:
    """The first line of the module that a stage's work stands in, after its name."""
    said = (sys.modules[stage.work.__module__].__doc__ or "").splitlines()[0]  # pyright: ignore[reportAttributeAccessIssue]
    return said.partition(": ")[2]


PARTS = {"stages": stages, "online-stages": online_stages, "floors": floors}

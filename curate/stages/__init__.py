"""What a run does, stage by stage: one module a stage, listed here once, in order, for each kind of run.

`engine`, `results` and the documentation read these tables. A stage more is its module and its line below; a kind of run with
other stages is a module with a table `STAGES` and a line in `KINDS`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from curate.stages import featurize, fit, prepare, proxy, render, seal, select, target, tokenize, tokenize_target, weigh
from curate.stages.stage import Stage

BATCH = (
    prepare.STAGE,
    tokenize.STAGE,
    tokenize_target.STAGE,
    proxy.STAGE,
    target.STAGE,
    featurize.STAGE,
    fit.STAGE,
    weigh.STAGE,
    select.STAGE,
    render.STAGE,
    seal.STAGE,
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in BATCH}
KINDS = {"batch": "curate.stages", "online": "curate.online.stages"}
"""Kind of run → module with its table."""


def table(config: Mapping[str, Any]) -> Mapping[str, Stage]:
    """The stages of a run by name, in order.

    Args:
        config: of the run, as plain data.
    """
    kind = "online" if config.get("online") is not None else "batch"
    return import_module(KINDS[kind]).STAGES

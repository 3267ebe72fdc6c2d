"""The stages of online mode, in order: twin and rescore come once a generation, the dataset is of the last."""

from collections.abc import Mapping

from curate.online import rescore, seal, twin, weigh
from curate.stages import prepare, proxy, render, select, tokenize, tokenize_target
from curate.stages.stage import Stage

ONLINE = (
    prepare.STAGE,
    tokenize.STAGE,
    tokenize_target.STAGE,
    proxy.STAGE,
    twin.STAGE,
    rescore.STAGE,
    weigh.STAGE,
    select.STAGE,
    render.STAGE,
    seal.STAGE,
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in ONLINE}

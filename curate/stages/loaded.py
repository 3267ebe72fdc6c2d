"""What the process that workers are forked from loads before they are: everything that the stages load late."""

from curate.stages import (
    excess_losses,
    facts,
    learners,
    loop_problem,
    model_weights,
    proxy_states,
    refine,
    shard_features,
    stability,
    stored,
    warmup_rows,
    weighting_models,
)

__all__ = [
    "excess_losses",
    "facts",
    "learners",
    "loop_problem",
    "model_weights",
    "proxy_states",
    "refine",
    "shard_features",
    "stability",
    "stored",
    "warmup_rows",
    "weighting_models",
]

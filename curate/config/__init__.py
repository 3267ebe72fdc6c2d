"""The pipeline file: what its sections are, read strictly, with the line in every message."""

from curate.config.evaluation import EvaluationConfig
from curate.config.load import load, override, read, schema, to_dict, validate
from curate.config.pipeline import Pipeline

__all__ = ["EvaluationConfig", "Pipeline", "load", "override", "read", "schema", "to_dict", "validate"]

"""What verbs print with --json, one class a verb; `curate schema VERB` prints the JSON Schema of each."""

from __future__ import annotations

from curate.cli.documents import evaluation, others, runs, samples
from curate.cli.documents.base import Document

__all__ = ["DOCUMENTS", "Document"]

DOCUMENTS: dict[str, type[Document]] = {
    kind.model_fields["verb"].default: kind
    for kind in (
        runs.Plan,
        runs.Status,
        samples.Inspect,
        runs.Verify,
        evaluation.Evaluate,
        evaluation.Arena,
        evaluation.Lds,
        others.Export,
        others.CheckTrainer,
        others.Publish,
        others.Methods,
        others.Doctor,
    )
}
"""By verb."""

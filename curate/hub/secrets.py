"""Credentials in what is about to be published: a small set of patterns, each so particular that prose and code hardly match."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute defines its functions when imported

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

KINDS = {
    "a Hugging Face token": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret key": r"(?i:aws_?secret_?access_?key)\W{1,8}[A-Za-z0-9/+]{40}",
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,200}?[A-Za-z0-9+/=]{40}",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[0-9]{8,}-[A-Za-z0-9-]{10,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}",
    "an API key of OpenAI or Anthropic": r"\bsk-(?:proj-|ant-|svcacct-)?[A-Za-z0-9_]{10,}[A-Za-z0-9_-]{22,}",
    "a live Stripe key": r"\b[rs]k_live_[0-9A-Za-z]{24,}",
}
"""What is looked for, with the syntax that Python and RE2 share; RE2 takes linear time whatever the text."""
EXAMPLES = re.compile(r"EXAMPLE|(.)\1{9}")
"""In a documentation's own key, such as AWS's, and in one that somebody typed with a key held down."""
ROWS = 1000
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_VIEWS = (pa.types.is_string_view, pa.types.is_binary_view)


class Scan:
    """A search for secrets.

    Args:
        own: secrets in use right now, such as the token that publishes; found literally.
    """

    def __init__(self, own: Sequence[str] = ()) -> None:
        literal = {"the token in use": "|".join(map(re.escape, sorted(own)))} if own else {}
        self._kinds = {kind: re.compile(pattern, re.ASCII) for kind, pattern in {**literal, **KINDS}.items()}
        self._any = "|".join(f"(?:{pattern})" for pattern in (*map(_re2, own), *KINDS.values()))

    def text(self, text: str) -> Iterator[tuple[str, int]]:
        """Every secret in a text: its kind, and where it begins."""
        for kind, pattern in self._kinds.items():
            yield from ((kind, match.start()) for match in pattern.finditer(text) if not EXAMPLES.search(match[0]))

    def file(self, path: Path, name: str) -> Iterator[tuple[str, str]]:
        """Every secret of a file, as the place and the kind; never the secret itself.

        Args:
            path: a Parquet file, which is read in batches, or a text file.
            name: what messages call it.
        """
        if path.suffix == ".parquet":
            yield from self._parquet(path, name)
            return
        text = path.read_text("utf-8", "replace")
        for kind, place in self.text(text):
            yield f"{name}, line {text.count(chr(10), 0, place) + 1}", kind

    def _parquet(self, path: Path, name: str) -> Iterator[tuple[str, str]]:
        with pq.ParquetFile(path, pre_buffer=False) as file:  # a batch at a time, never a whole row group
            for kind, _ in self.text(_stated(file.schema_arrow)):
                yield f"{name}, in its schema", kind
            start = 0
            for batch in file.iter_batches(ROWS, use_threads=False):
                for column, values in zip(batch.schema.names, batch.columns, strict=True):
                    if any(self._hits(texts) for texts in _texts(values)):
                        for row, value in enumerate(values.to_pylist(), start):
                            for kind, _ in (found for text in _strings(value) for found in self.text(text)):
                                yield f"{name}, row {row}, column {column!a}", kind
                start += batch.num_rows

    def _hits(self, texts: pa.Array) -> bool:
        return bool(pc.any(pc.match_substring_regex(texts, self._any)).as_py())


def _re2(literal: str) -> str:
    return re.sub(r"([^A-Za-z0-9_])", r"\\\1", literal)


def _stated(schema: pa.Schema) -> str:
    """Names and metadata of a schema."""
    kept = {**(schema.metadata or {}), **{field.name.encode(): b"" for field in schema}}
    return "\n".join(text.decode("utf-8", "replace") for item in kept.items() for text in item)


def _texts(values: pa.Array) -> Iterator[pa.Array]:
    """Every array of texts or bytes inside an array."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        yield from _texts(values.storage)
    elif isinstance(values, pa.DictionaryArray):
        yield from _texts(values.dictionary)
    elif any(is_text(kind) for is_text in _TEXTS):
        yield values
    elif any(is_view(kind) for is_view in _VIEWS):
        yield values.cast(pa.large_binary() if pa.types.is_binary_view(kind) else pa.large_string())
    elif pa.types.is_map(kind):
        yield from _texts(values.keys)
        yield from _texts(values.items)
    elif pa.types.is_struct(kind):
        for child in values.flatten():
            yield from _texts(child)
    elif kind.num_fields:
        yield from _texts(values.flatten())


def _strings(value: Any) -> Iterator[str]:
    """Every text inside a Python value."""
    if isinstance(value, str | bytes):
        yield value if isinstance(value, str) else value.decode("utf-8", "replace")
    elif isinstance(value, dict):
        yield from (text for item in value.items() for inner in item for text in _strings(inner))
    elif isinstance(value, list | tuple):
        yield from (text for inner in value for text in _strings(inner))

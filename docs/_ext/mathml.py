"""Mathematics as MathML: browsers draw it themselves, without a script or the network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)
KNOWN = {r"\arg": r"\operatorname{arg}"}
"""Commands that the converter does not know, in others that it does."""


def drawn(node: nodes.math | nodes.math_block, display: str) -> str:
    """A formula as MathML; a command that is not understood is a warning, and so fails the build."""
    text = re.sub(r"\\[a-z]+", lambda command: KNOWN.get(command[0], command[0]), node.astext())
    made = convert(text, display=display)
    if "\\" in re.sub(r"<annotation.*?</annotation>", "", made):
        log.warning("formula not understood: %s", text, location=node)
    return made


def inline(translator: Any, node: nodes.math) -> None:
    """A formula within a line."""
    translator.body.append(drawn(node, "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """A formula on lines of its own, scrolled inside itself where the page is narrow."""
    translator.body.append(f'<div class="math-block">{drawn(node, "block")}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

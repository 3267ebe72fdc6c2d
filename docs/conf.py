"""The site: Sphinx, MyST and Furo. `make docs` builds it; any warning fails the build.

Why these: Sphinx is the one generator that checks every link, anchor and cross-reference, reads docstrings with their types by
importing the package, and needs no network to build or to show. MkDocs (last released in 2024; its Material theme is in
maintenance) cannot resolve types across pages without plugins of others; Zensical is alive and fast, and at version 0.1.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "curate"
author = "the curate authors"
copyright = "the curate authors, Apache-2.0"
version = release = installed("curate")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
]
myst_enable_extensions = ["dollarmath", "deflist", "attrs_inline", "alert"]
myst_heading_anchors = 4
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!curate\.).*"),  # types of other packages: their pages are not on this site
    (
        "py:.*",
        r"curate\..*\.(Descent|LayerSettings|Observer|PoolReader|Optimizer)",
    ),  # types in signatures that no user makes
]

default_role = "literal"  # docstrings write code as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "curate"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {"footer_icons": []}

copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"
pygments_style = "tango"
pygments_dark_style = "github-dark"

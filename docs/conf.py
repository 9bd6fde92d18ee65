"""How `make docs` turns docs/ and the public docstrings into a site in build/docs/."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from leancnn.version import __version__ as release  # noqa: E402

project = "leancnn"
copyright = "the authors of leancnn, Apache-2.0"
version = release
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"leancnn {release}"
html_copy_source = False
default_role = "code"  # docstrings write `name` where reST writes ``name``
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"


def _readable(app, what, name, obj, options, lines):
    """Docstrings as they are written: fenced examples become code blocks of reST."""
    text = "\n".join(lines)
    text = re.sub(
        r"```(?:python|py)?\n(.*?)\n```",
        lambda match: "\n.. code-block:: python\n\n" + re.sub(r"(?m)^", "    ", match[1]) + "\n",
        text,
        flags=re.S,
    )
    lines[:] = text.split("\n")


def setup(app):
    """Connect what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", _readable)

"""Sphinx: the documentation of diffphys, from the pages here, the docstrings, the command line and the notebooks.

What can be derived is: `_ext/derived.py` writes the page of the command line, the tables that the code knows and the notebooks
into `generated/` before Sphinx looks for pages. Nothing is fetched from the net; formulas become MathML at build time.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from diffphys import __version__  # noqa: E402

project = "diffphys"
author = "The diffphys developers"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "derived", "mathml", "plain_docstrings"]
exclude_patterns = ["_build", "_ext", "generated/parts"]
root_doc = "index"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"diffphys {release}"
html_static_path = ["_static"]
html_css_files = ["diffphys.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False

default_role = "code"  # docstrings write `name` for code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

linkcheck_timeout = 20
linkcheck_retries = 2

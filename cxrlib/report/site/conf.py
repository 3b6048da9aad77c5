"""Sphinx's configuration for the report; nothing in it depends on the run."""

project = "What is it really looking at?"
html_title = "What is it really looking at?"
author = "The cxrlib authors"
project_copyright = "The cxrlib authors, MIT licence"
language = "en"

extensions = [
    "myst_nb", "sphinxcontrib.bibtex", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "cxrlib.report.explorer", "cxrlib.report.site.math_svg", "cxrlib.report.site.offline",
    "cxrlib.report.site.reference",
]  # fmt: skip
autodoc_preserve_defaults = True  # as written, without this machine's paths and addresses
autodoc_typehints = "none"  # the docstrings give shapes and units
autodoc_member_order = "bysource"
napoleon_google_docstring = False
toc_object_entries = False
python_maximum_signature_line_length = 80
exclude_patterns: list[str] = []
# A chapter may point to one that this report does not hold, and headings are the authors' affair.
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict] = {}  # its defaults would be fetched from the network
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the solution"  # nothing else is folded
nb_code_prompt_hide = "Hide the solution"
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 3
bibtex_bibfiles = ["pages/references.bib"]  # relative to this file

html_theme = "sphinx_book_theme"
html_theme_options = {
    "use_download_button": True,
    "use_fullscreen_button": False,
    "home_page_in_toc": False,  # the title above the contents leads there
    "navbar_start": [],
    "navbar_center": [],
    "navbar_end": [],
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "toc_title": "On this page",
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "Made for teaching and research. Not a medical device; not for clinical use.",
}
html_context = {"default_mode": "auto"}  # light or dark as the reader's system is
html_static_path = ["static"]
html_css_files = ["report.css"]
html_js_files = ["print.js"]
html_math_renderer = "svg"
html_sourcelink_suffix = ""
html_last_updated_fmt = None
# The summaries are fetched page by page, which browsers refuse to do from file://.
html_show_search_summary = False
html_use_index = False

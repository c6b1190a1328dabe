"""An evaluation as one HTML file: no scripts, no requests, charts drawn as inline SVG by hand.

A report travels as an attachment and is read years later, so everything that it needs is in it.
"""

from __future__ import annotations

from optllm_router.bench.html.page import render_html, render_tables_html

__all__ = ["render_html", "render_tables_html"]

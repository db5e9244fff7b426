"""The model card: markdown in, HTML that is safe to show out."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markupsafe import Markup

_DEEPEST = 6


def render_card(text: str) -> Markup:
    """Render a model card.

    The card travels with a model file that may come from anywhere: HTML in it is shown as text, pictures are left out
    (the page loads nothing), and headings start below the page's own.
    """
    # Links stay text, since a report must not send its reader anywhere that its author did not choose.
    reader = MarkdownIt("js-default", {"html": False, "linkify": False}).disable(["image", "link", "autolink"])
    tokens = reader.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(_DEEPEST, int(token.tag[1]) + 2)}"
        token.attrs.pop("style", None)  # alignment of table cells: the page's policy forbids style attributes
    return Markup(reader.renderer.render(tokens, reader.options, {}))  # noqa: S704 - made by the renderer above

from __future__ import annotations

from pipelines.report.card import render_card


def test_headings_lists_tables_code_and_bold() -> None:
    html = render_card("# Tiles\n\n**bold** `code`\n\n- one\n- two\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n")
    assert "<h3>Tiles</h3>" in html
    assert "<strong>bold</strong> <code>code</code>" in html
    assert html.count("<li>") == 2
    assert "<td>2</td>" in html  # the page's policy forbids the style that aligns a cell


def test_nothing_in_a_card_is_live() -> None:
    html = render_card(
        "<script>alert(1)</script> ![pixel](http://example.com/x.png) [press](javascript:alert(1)) "
        "<http://example.com> <img src=x onerror=alert(1)>\n\n<div onclick=alert(1)>\n"
    )
    for live in ("<script", "<img", "<a ", "<div"):
        assert live not in html
    assert "&lt;script&gt;" in html

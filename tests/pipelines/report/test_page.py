from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import FolderError
from pipelines.report import page

HOSTILE = "</script><script>alert(1)</script>&amp;\u2028\u2029'\"<!--"


def test_json_cannot_leave_its_element() -> None:
    text = page.escape_json({"name": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"name": HOSTILE}


def test_json_refuses_what_is_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        page.escape_json([float("nan")])


def test_packed_numbers_are_little_endian() -> None:
    values = np.array([1.5, np.nan, -2.0])
    back = np.frombuffer(base64.b64decode(page.pack(values, "f8")), "<f8")
    np.testing.assert_array_equal(back, values)


def test_the_policy_names_the_only_style_and_script(tmp_path: Path) -> None:
    (folder := tmp_path / "templates").mkdir()
    (folder / "shell.html").write_text((Path(page.__file__).parent / "templates" / "shell.html").read_text())
    html = page.render_page("shell.html", {}, data={"x": HOSTILE}, styles=["page.css"], scripts=["page.js"])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    for kind, directive in (("style", "style-src"), ("script", "script-src")):
        body = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.S)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{directive} &#39;sha256-{digest}&#39;" in policy[1]
    assert "default-src &#39;none&#39;" in policy[1]


@pytest.mark.parametrize("asset", sorted((Path(page.__file__).parent / "assets").iterdir()), ids=lambda path: path.name)
def test_assets_fit_into_their_elements_and_load_nothing(asset: Path) -> None:
    text = asset.read_text("utf-8")
    for ending in ("</script", "</style", "<!--", "\r"):
        assert ending not in text.lower()
    addresses = set(re.findall(r"\w+://[^'\"\s)]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for parser in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "@import", "url("):
        assert parser not in text.replace("'url(#abnormal-part)'", "")


def test_templates_have_no_inline_style_or_handler() -> None:
    for template in (Path(page.__file__).parent / "templates").iterdir():
        assert not re.search(r"<[^>]*\s(style|on\w+)=", template.read_text("utf-8")), template.name


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    page.write_page(target, "first")
    page.write_page(target, "second \ud800")
    assert target.read_text() == "second ?"
    (blocked := tmp_path / "blocked").mkdir()
    with pytest.raises(FolderError, match="cannot be written"):
        page.write_page(blocked, "page")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blocked", "report.html"]

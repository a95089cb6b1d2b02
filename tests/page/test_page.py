"""Pages: escaped, one file, and a policy that lets nothing else in."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pytest

from browser import opened
from finetune.page import page
from finetune.page.page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "</script><script>alert(1)</script>",
    "a\u202eb\u2066c",
    "{{ 7 * 7 }}",
    "\udcff\x00\x1b[31m",
    "n" * 300,
]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Templates of a room of tests, by name."""
    templates = {
        "t.html": "{% extends 'page.html' %}{% block title %}{{ title | plain }}{% endblock %}"
        '{% block content %}{% for each in names %}<p title="{{ each | plain }}">{{ each | name }}</p>'
        "{% endfor %}{{ extra }}{% endblock %}"
        '{% block data %}<script type="application/json">{{ names | tojson }}</script>{% endblock %}'
    }
    found = page._environment

    def with_tests(room: str) -> jinja2.Environment:
        environment = found("finetune.page")
        assert environment.loader is not None
        environment.loader = jinja2.ChoiceLoader([jinja2.DictLoader(templates), environment.loader])
        return environment

    monkeypatch.setattr(page, "_environment", with_tests)
    return templates


def test_names_are_text_and_nothing_else(room: dict[str, str]) -> None:
    content = render("tests", "t.html", title=HOSTILE[0], names=HOSTILE, extra="<b>").decode()
    assert "<img" not in content
    assert "<b>" not in content
    assert "49" not in content.split("<main")[1].split("</main>")[0]
    assert not {"\u202e", "\u2066", "\x00", "\x1b"} & set(content)
    assert content.count("<script") == 2


def test_a_page_is_the_same_bytes_again(room: dict[str, str]) -> None:
    values = {"title": "t", "names": HOSTILE, "extra": ""}
    assert render("tests", "t.html", **values) == render("tests", "t.html", **values)


def test_a_missing_value_is_an_error(room: dict[str, str]) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("tests", "t.html", title="t", names=[])


def test_a_script_that_would_end_early_is_refused(room: dict[str, str]) -> None:
    room["end.js"] = "const a = '</script>'"
    with pytest.raises(ValueError, match="end the script early"):
        render("tests", "t.html", scripts=["end.js"], title="t", names=[], extra="")


def test_a_hostile_page_does_nothing(room: dict[str, str], browser: "Browser", tmp_path: Path) -> None:
    room["own.js"] = "document.querySelector('main').dataset.ran = 'yes';"
    room["own.css"] = "main { border-top: 7px solid; }"
    content = render(
        "tests", "t.html", styles=["own.css"], scripts=["own.js"], title=HOSTILE[2], names=HOSTILE, extra=""
    )
    (tmp_path / "page.html").write_bytes(content)
    with opened(browser, tmp_path / "page.html") as found:
        assert found.problems == []
        assert found.page.locator("main p").count() == len(HOSTILE)
        assert found.page.locator("main").get_attribute("data-ran") == "yes"
        border = "getComputedStyle(document.querySelector('main')).borderTopWidth"
        assert found.page.evaluate(border) == "7px"
        # Nothing is wider than the window, a name of 300 characters neither.
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


FOREIGN = {
    "a script": ("<script>document.title = 'foreign'</script>", "script-src"),
    "a handler": ("<details open ontoggle='document.title = 1'></details>", "script-src"),
    "a style": ("<style>p { color: red }</style>", "style-src"),
    "a style attribute": ("<p style='color: red'>a</p>", "style-src"),
    "an image from a network": ("<img src='http://127.0.0.1:9/a.png' alt=''>", "img-src"),
    "a frame": ("<iframe src='data:text/html,a'></iframe>", "frame-src"),
}


@pytest.mark.parametrize(("markup", "rule"), FOREIGN.values(), ids=FOREIGN)
def test_what_is_foreign_is_a_violation(
    markup: str, rule: str, room: dict[str, str], browser: "Browser", tmp_path: Path
) -> None:
    content = render("tests", "t.html", title="t", names=[], extra="").decode()
    (tmp_path / "page.html").write_text(content.replace("</main>", f"{markup}</main>"))
    with opened(browser, tmp_path / "page.html") as found:
        problems = "\n".join(found.problems)
        assert re.search(
            rf"violates the following Content Security Policy directive.*({rule}|default-src)", problems
        )
        assert found.page.title() == "t"

"""Charts: the same figure gives the same SVG, in the page's colours, without forbidden styles."""

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from matplotlib.figure import Figure

from browser import opened
from finetune.page.charts import svg
from finetune.page.page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def figure() -> Figure:
    made = Figure(figsize=(4, 3), layout="constrained")
    axes = made.add_subplot()
    axes.plot([1, 2, 3], [3, 1, 2], marker="o", label="<val> & more")
    axes.bar([1, 2], [1, 2], color="tab:orange", alpha=0.5)
    axes.grid()
    axes.legend()
    return made


def test_a_chart_is_the_same_again_and_says_what_it_is() -> None:
    chart = svg(figure(), "A <title>", 'It shows "x".')
    assert chart == svg(figure(), "A <title>", 'It shows "x".')
    root = ElementTree.fromstring(chart)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'A <title>. It shows "x".'
    assert [root[0].text, root[1].text] == ["A <title>", 'It shows "x".']
    assert not [each for each in root.iter() if each.tag == "style" or "style" in each.attrib]
    assert "<val> & more" in [each.text for each in root.iter("text")]


def test_two_charts_of_a_page_share_no_ids() -> None:
    one, other = (ElementTree.fromstring(svg(figure(), title, "")) for title in ("a", "b"))
    ids = [{each.attrib["id"] for each in root.iter() if "id" in each.attrib} for root in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    links = {each.attrib["href"] for each in one.iter() if "href" in each.attrib}
    assert links <= {f"#{each}" for each in ids[0]}


def test_a_chart_follows_the_colours_of_the_page(browser: "Browser", tmp_path: Path) -> None:
    page = render("finetune.page", "page.html").decode()
    (tmp_path / "page.html").write_text(page.replace("</main>", f"{svg(figure(), 'a', 'b')}</main>"))
    colours = []
    for dark in (False, True):
        with opened(browser, tmp_path / "page.html", dark=dark) as found:
            assert found.problems == []
            line = (
                "[...document.querySelectorAll('.chart path')].map((each) => getComputedStyle(each).stroke)"
            )
            colours.append(
                (
                    found.page.evaluate("getComputedStyle(document.querySelector('.chart text')).fill"),
                    set(found.page.evaluate(line)),
                )
            )
    (light_ink, light_lines), (dark_ink, dark_lines) = colours
    assert light_ink == "rgb(27, 32, 38)"
    assert dark_ink == "rgb(232, 235, 238)"
    assert "rgb(31, 95, 168)" in light_lines
    assert "rgb(31, 95, 168)" not in dark_lines

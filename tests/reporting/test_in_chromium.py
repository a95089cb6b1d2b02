"""The report in a real browser: nothing but the file is asked for, and everything in it works."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser import opened, screenshot
from reporting.conftest import CLASSES

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TITLES = "[...document.querySelectorAll('#classes tbody tr')].map((row) => row.dataset.class)"


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("wide", True), ("phone", False)])
def test_it_opens_without_a_problem(
    size: str, dark: bool, page: Path, browser: "Browser", tmp_path: Path
) -> None:
    with opened(browser, page, size=size, dark=dark) as found:
        assert found.problems == []
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        broken = "[...document.images].filter((each) => !each.complete || !each.naturalWidth).length"
        assert found.page.evaluate(broken) == 0
        assert found.page.evaluate("document.images.length") > 100
        assert (
            found.page.evaluate("document.querySelectorAll('[onerror], [onmouseover], iframe').length") == 0
        )
        assert screenshot(found, f"report-{size}{'-dark' if dark else ''}", tmp_path).stat().st_size > 10_000
        assert found.problems == []


def test_a_cell_of_the_matrix_opens_its_images(page: Path, browser: "Browser") -> None:
    with opened(browser, page) as found:
        buttons = found.page.locator("#matrix button")
        for place in range(buttons.count()):
            button = buttons.nth(place)
            button.click()
            assert found.page.locator("#cell").is_visible()
            count = int(button.get_attribute("data-value") or 0)
            assert found.page.locator("#cell-images li").count() == min(count, 24)
            assert found.page.locator("#cell-images img").count() == min(count, 24)
            true = int((button.get_attribute("data-cell") or "").split(",")[0])
            title = found.page.locator("#cell-title").inner_text()
            assert title.startswith(f"{count} image")
            assert sorted(CLASSES)[true].replace("\u202e", "\\u202e") in title
            found.page.keyboard.press("Escape")
            assert not found.page.locator("#cell").is_visible()
            assert button.evaluate("(each) => each === document.activeElement")
        assert found.problems == []


def test_arrow_keys_move_through_the_matrix(page: Path, browser: "Browser") -> None:
    with opened(browser, page) as found:
        cells = found.page.locator("#matrix button")
        assert [cells.nth(place).get_attribute("tabindex") for place in range(cells.count())].count("0") == 1
        cells.first.focus()
        seen = {cells.first.get_attribute("data-cell")}
        for key in (
            "ArrowRight",
            "ArrowRight",
            "ArrowDown",
            "ArrowLeft",
            "ArrowDown",
            "ArrowRight",
            "ArrowUp",
        ):
            found.page.keyboard.press(key)
            seen.add(found.page.evaluate("document.activeElement.dataset.cell"))
        assert None not in seen
        assert len(seen) > 2
        found.page.keyboard.press("Enter")
        assert found.page.locator("#cell").is_visible()
        found.page.locator("#cell-close").click()
        assert not found.page.locator("#cell").is_visible()


@pytest.mark.parametrize("how", ["click", "keyboard"])
def test_the_table_of_classes_sorts(how: str, page: Path, browser: "Browser") -> None:
    with opened(browser, page) as found:

        def press(name: str) -> None:
            button = found.page.locator("#classes th button").get_by_text(name, exact=True)
            if how == "click":
                button.click()
            else:
                button.focus()
                found.page.keyboard.press("Enter")

        recall = [
            float(each)
            for each in found.page.locator("#classes td[data-metric=recall]").evaluate_all(
                "(cells) => cells.map((each) => each.dataset.value)"
            )
        ]
        before = found.page.evaluate(TITLES)
        order = sorted(range(len(recall)), key=lambda place: recall[place])
        press("Found")
        head = found.page.locator("#classes th", has_text="Found")
        assert head.get_attribute("aria-sort") == "descending"
        down = [recall[int(each)] for each in found.page.evaluate(TITLES)]
        assert down == sorted(recall, reverse=True)
        assert "Sorted by Found, descending" in found.page.locator("#per-class [aria-live]").inner_text()
        press("Found")
        assert head.get_attribute("aria-sort") == "ascending"
        assert [recall[int(each)] for each in found.page.evaluate(TITLES)] == [recall[at] for at in order]
        press("Class")
        assert head.get_attribute("aria-sort") == "none"
        names = found.page.locator("#classes tbody th").all_inner_texts()
        assert names == found.page.evaluate("(names) => names.toSorted((a, b) => a.localeCompare(b))", names)
        assert sorted(before) == sorted(found.page.evaluate(TITLES))
        assert found.problems == []


def test_what_a_screen_reader_needs_is_there(page: Path, browser: "Browser") -> None:
    with opened(browser, page) as found:
        tab = found.page
        assert tab.evaluate("document.documentElement.lang") == "en"
        for landmark in ("banner", "navigation", "main", "contentinfo"):
            assert tab.get_by_role(landmark).count() == 1
        levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => +each.tagName[1])")
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert tab.evaluate("[...document.images].every((each) => each.hasAttribute('alt'))")
        assert tab.evaluate("[...document.querySelectorAll('table')].every((each) => each.caption)")
        assert tab.evaluate("[...document.querySelectorAll('th')].every((each) => each.scope)")
        links = tab.evaluate(
            "[...document.querySelectorAll('nav a')].map((each) => each.getAttribute('href'))"
        )
        assert all(tab.locator(each).count() == 1 for each in links)
        ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
        assert len(ids) == len(set(ids))
        tab.keyboard.press("Tab")
        assert tab.evaluate("document.activeElement.className") == "skip"
        tab.keyboard.press("Enter")
        assert tab.evaluate("document.activeElement.id") == "content"

"""Charts: matplotlib figures as inline SVG that follows the colours of the page, dark or light.

Matplotlib writes its colours into ``style`` attributes, which the page's policy forbids. Here they become
presentation attributes, and matplotlib's default colours become the page's variables.
"""

import hashlib
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

from finetune.disk.figure import figure_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# The colours of the project's figures and matplotlib's own, and the variables of page.css that replace them.
_COLOURS = {
    "#0072b2": "var(--chart-0)",
    "#d55e00": "var(--chart-1)",
    "#009e73": "var(--chart-2)",
    "#cc79a7": "var(--chart-6)",
    "#e69f00": "var(--chart-8)",
    "#56b4e9": "var(--chart-9)",
    "#666666": "var(--muted)",
    "#dddddd": "var(--line)",
    "#f3f3f3": "var(--panel)",
    "#ffffff": "var(--paper)",
    "#000000": "var(--ink)",
    "#b0b0b0": "var(--line)",
    "#cccccc": "var(--line)",
    "#808080": "var(--muted)",
    "#7f7f7f": "var(--muted)",
    "#1f77b4": "var(--chart-0)",
    "#ff7f0e": "var(--chart-1)",
    "#2ca02c": "var(--chart-2)",
    "#d62728": "var(--chart-3)",
    "#9467bd": "var(--chart-4)",
    "#8c564b": "var(--chart-5)",
    "#e377c2": "var(--chart-6)",
    "#bcbd22": "var(--chart-8)",
    "#17becf": "var(--chart-9)",
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def svg(figure: "Figure", title: str, description: str) -> Markup:
    """A figure as an ``svg`` element for a page. The same figure gives the same text.

    Args:
        title: what it is, for screen readers and on hover.
        description: what it shows, in words.
    """
    import matplotlib

    figure.patch.set_alpha(0.0)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        content = figure_bytes(figure, "svg")
    root = ElementTree.fromstring(content)
    _drop(root, "metadata", "style")
    for element in root.iter():
        _unstyle(element)
    _rename(root, hashlib.sha256(content + f"{title}\n{description}".encode()).hexdigest()[:10])
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    _head(root, title, description)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _head(root: ElementTree.Element, title: str, description: str) -> None:
    box = root.attrib["viewBox"]
    # Points to pixels, so that text has the size that it has on paper.
    width = f"{float(box.split()[2]) * 4 / 3:.0f}"
    root.attrib.clear()
    root.attrib |= {
        "viewBox": box,
        "width": width,
        "class": "chart",
        "role": "img",
        "aria-label": f"{title}. {description}",
        "stroke-linejoin": "round",
        "stroke-linecap": "butt",
    }
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag)
        element.text = text
        root.insert(place, element)


def _drop(root: ElementTree.Element, *tags: str) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{_SVG}{tag}" for tag in tags}:
                parent.remove(child)


def _unstyle(element: ElementTree.Element) -> None:
    """Turn the ``style`` of an element into attributes. Fonts are the page's."""
    for rule in filter(None, (each.strip() for each in element.attrib.pop("style", "").split(";"))):
        name, value = (each.strip() for each in rule.split(":", 1))
        if name == "font":  # as older versions write it: size and family
            name, value = "font-size", next(each for each in value.split() if each.endswith("px"))
        if name != "font-family":
            element.attrib[name] = _COLOURS.get(value.lower(), value)
    if element.tag in (f"{_SVG}path", f"{_SVG}use") and "d" in element.attrib:
        element.attrib["d"] = " ".join(element.attrib["d"].split())


def _rename(root: ElementTree.Element, prefix: str) -> None:
    """Keep the ids that something refers to, under names that are this chart's alone."""
    used = set()
    for element in root.iter():
        link = element.attrib.pop(_LINK, None)
        if link is not None:
            element.attrib["href"] = f"#{prefix}-{link.removeprefix('#')}"
            used.add(link.removeprefix("#"))
        for name, value in element.attrib.items():
            used.update(_REFERENCE.findall(value))
            element.attrib[name] = _REFERENCE.sub(rf"url(#{prefix}-\1)", value)
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.attrib["id"] = f"{prefix}-{own}"

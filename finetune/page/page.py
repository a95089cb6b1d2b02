"""Render a page: one HTML file that opens from a disk and asks for nothing.

Templates are Jinja's, with autoescape. The page's own style and script are in the file. Its Content Security
Policy names them by their hash, allows images from ``data:`` addresses, and forbids everything else: any
other script or style, every request, and ``style`` attributes.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from finetune.errors import plain, printable
from finetune.version import __version__

OWN = "finetune.page"
STYLE, SCRIPT = "page.css", "page.js"


def render(
    room: str, template: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), **values: Any
) -> bytes:
    """Render ``template`` of ``room``, which extends ``page.html``; UTF-8.

    The same values give the same bytes. Strings are escaped. Write names from outside as ``{{ it | name }}``
    in text, and ``{{ it | plain }}`` in an attribute: both show control characters as escapes, and a name in
    text cannot change the direction of the text around it. ``{{ it | lines }}`` keeps lines.

    Args:
        room: a package with a folder ``templates``, such as ``finetune.reporting``.
        styles, scripts: further files of that folder, which are added to the page's own.
        values: what the template reads. A value that it reads and that is missing is an error.
    """
    environment = _environment(room)
    style = "".join(_text(environment, name) for name in (STYLE, *styles))
    script = "".join(_text(environment, name) for name in (SCRIPT, *scripts))
    for text, tag in ((style, "style"), (script, "script")):
        if f"</{tag}" in text.lower():
            raise ValueError(f"the text </{tag} would end the {tag} early")
    page = environment.get_template(template).render(
        style=Markup(style),  # own files, not data
        script=Markup(script),
        policy=policy(style, script),
        version=__version__,
        **values,
    )
    # A file name may hold bytes that are no Unicode.
    return page.encode("utf-8", "backslashreplace")


def policy(style: str, script: str) -> str:
    """The Content Security Policy that allows this style and this script, and images from ``data:``."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _environment(room: str) -> jinja2.Environment:
    rooms = dict.fromkeys((room, OWN))
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(each) for each in rooms]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "name": _name,
        "plain": printable,
        "lines": plain,
        "percent": percent,
        "thousands": thousands,
    }
    return environment


def _text(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _name(name: object) -> Markup:
    """A name from outside, in text."""
    return Markup("<bdi>{}</bdi>").format(printable(name))


def percent(fraction: float, digits: int = 1) -> str:
    """Write 0.9375 as ``93.8 %``, with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%"


def thousands(number: int) -> str:
    """Write 12345 as ``12,345``."""
    return f"{number:,}"

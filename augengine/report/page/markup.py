"""Text and numbers in, HTML out in which no text is anything but text."""

from __future__ import annotations

import html
import json
from typing import Any


class Markup(str):
    """HTML that may stand in a page as it is; `element` and `join` make it, and nothing else should."""


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element with its children in order; what is no `Markup` becomes escaped text.

    Attributes end in `_` where Python has the word, and their other underscores become hyphens; those that are None are
    left out.

    >>> element("td", "<b>", class_="a", aria_label='x"y')
    '<td class="a" aria-label="x&quot;y">&lt;b&gt;</td>'
    """
    named = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    start = "".join(f' {name}="{html.escape(visible(str(value)))}"' for name, value in named)
    return Markup(f"<{tag}{start}>{join(*children)}</{tag}>")


def join(*children: object) -> Markup:
    """Children side by side, escaped where they are no `Markup`."""
    return Markup("".join(c if isinstance(c, Markup) else html.escape(visible(str(c))) for c in children))


def visible(text: str) -> str:
    """The text with characters that could hide or turn others round shown by their escapes; new lines stay.

    >>> visible("a" + chr(0x202E) + "b")
    'a\\\\u202eb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\xa0" else ascii(c)[1:-1] for c in text)


def script_json(value: Any) -> Markup:
    """JSON for a `script` element of type `application/json`: no text in it can end the element."""
    text = json.dumps(_visible(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): _visible(one) for key, one in value.items()}
    return [_visible(one) for one in value] if isinstance(value, list | tuple) else value


def table(columns: list[str], rows: list[list[object]]) -> Markup:
    """A table; numbers stand at the right."""
    head = element("tr", *(element("th", name, scope="col") for name in columns))
    body = [element("tr", *(element("td", v, class_="number" if _number(v) else None) for v in row)) for row in rows]
    inner = element("table", element("thead", head), element("tbody", *body))
    return element("div", inner, class_="wide", tabindex=0, role="region", aria_label="table: " + ", ".join(columns))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

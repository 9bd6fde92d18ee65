"""Pages of reports, read back: tags, attributes and words."""

import html.parser
import json
import xml.etree.ElementTree as ET

from markupsafe import Markup

from leancnn.records import find
from leancnn.report import render
from leancnn.svg import _word

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>*{background:url(https://example.com/x)}",
    "--><!-- <svg/onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "$a_1$ \\frac &amp; &lt;",
    "right\u202eto left\x1b[31m\x00\ufffe\udc80",
    "javascript:alert(1)",
)


VOID = {"meta", "img", "br", "link", "input", "hr"}


ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "a", "header", "p", "nav", "ol", "li"),
    *("h1", "h2", "h3", "h4", "h5", "main", "section", "div", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "span", "i", "b", "u", "figure", "figcaption", "img", "details"),
    *("summary", "code", "footer", "svg", "defs", "g", "path", "use", "text", "clippath", "rect"),
}


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; a tag that is not closed by its own is an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.styles if self.open[-1:] == ["style"] else self.words).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


def draw_plainly(monkeypatch):
    """Charts without matplotlib's second for each page."""

    def drawn(label, *words, **how):
        root = ET.Element("svg", {"role": "img", "aria-label": _word(label, 200)})
        return Markup(ET.tostring(root, encoding="unicode"))

    for place in ("training.line_chart", "accuracy.interval_chart", "speed.interval_chart"):
        monkeypatch.setattr(f"leancnn.sections.{place}", drawn)
    monkeypatch.setattr("leancnn.sections.comparison.point_chart", drawn)
    monkeypatch.setattr("leancnn.sections.search.point_chart", drawn)


def page_of(*paths, **how):
    return render([record for path in paths for record in find(path)], **how)[0]


def read_value(path):
    value = json.loads(path.read_bytes())
    if isinstance(value, dict):
        value.pop("sha256", None)
    return value

"""report.html as a browser reads it."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

import task_4

VOID = {"meta", "img"}


class Page(HTMLParser):
    """A page: its text, tables by caption, images and tags. Asserts that every tag is closed."""

    def __init__(self, path):
        super().__init__()
        self.text, self.images, self.tags, self.tables = "", [], set(), {}
        self.open, self.rows, self.caption = [], [], None
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            assert (tag == "th") == (attributes.get("scope") in ("row", "col"))
        if tag == "caption":
            self.caption, self.rows = "", []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def table(self, beginning):
        (table,) = [rows for caption, rows in self.tables.items() if caption.startswith(beginning)]
        return table[0], table[1:]


@pytest.fixture
def report_page(shell, settings_for):
    """Train with task_4.py, and read the run's report."""

    def run(*overrides):
        ended = shell(task_4, *settings_for, *overrides)
        assert ended.status == 0, ended.err
        return Page("run/report.html")

    return run

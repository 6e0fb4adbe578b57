"""The frame of a page: well-formed, nothing loaded, everything that comes in escaped."""

from html.parser import HTMLParser

from sampan.report.frame import figure, page, svg, table

VOID = {"meta", "br", "hr", "img"}


class Balanced(HTMLParser):
    """Raises where tags do not close in the order in which they open."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_well_formed(text):
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    for loaded in ("<script", "<link", "@import", " src=", "url("):
        assert loaded not in text


def test_a_page_is_one_file_that_loads_nothing():
    text = page("a < b", ["<h1>x</h1>", "", table([["h"], ["c"]])], "p { color: red; }")
    assert_well_formed(text)
    assert "<title>a &lt; b</title>" in text
    assert "p { color: red; }" in text


def test_a_table_escapes_its_cells_and_marks_its_columns():
    text = table([["a", "b"], ["<x>", "1"]], ["", "number"])
    assert "<td>&lt;x&gt;</td>" in text
    assert '<td class="number">1</td>' in text
    assert '<th class="number">b</th>' in text


def test_a_drawing_says_what_it_shows():
    text = figure('"quoted"', svg(10, 20, ["<path d='M0 0'/>"], '"quoted"'))
    assert 'viewBox="0 0 10 20" role="img" aria-label="&quot;quoted&quot;"' in text

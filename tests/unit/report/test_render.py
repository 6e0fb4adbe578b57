"""Pages from templates: one file that loads nothing, everything that comes in escaped, a missing value an error."""

import re
import subprocess
import sys

import pytest
from jinja2 import UndefinedError

from sampan.report.render import _environment, render, render_lines
from well_formed import assert_well_formed

SCRIPT = "<script>alert('1')</script>"


def block(source: str, **values: object) -> str:
    return (
        _environment()
        .from_string(f'{{% from "report/blocks.html" import table, table_of, bullets %}}{source}')
        .render(values)
    )


def test_a_page_is_one_file_that_loads_nothing_and_escapes_its_title():
    page = render_lines(f"a {SCRIPT}", ["first", f"second {SCRIPT}"])
    assert page.startswith("<!doctype html>\n<html") and page.endswith("</html>\n")
    assert f"second {SCRIPT}" in assert_well_formed(page)
    assert "<title>a &lt;script&gt;" in page and "<h1>a &lt;script&gt;" in page


def test_a_template_that_lacks_a_value_is_an_error_and_not_a_gap():
    with pytest.raises(UndefinedError, match="'lines' is undefined"):
        render("report/lines.html", title="x")


def test_a_table_escapes_its_cells_and_marks_its_columns():
    table = block("{{ table(rows, ('', 'number')) }}", rows=[["a", "b", "c"], ["<x>", "1", "2"]])
    assert_well_formed(table)
    assert re.findall(r"<t[hd][^/]*</t[hd]>", table) == [
        "<th>a</th>", '<th class="number">b</th>', '<th class="number">c</th>',
        "<td>&lt;x&gt;</td>", '<td class="number">1</td>', '<td class="number">2</td>',
    ]  # fmt: skip


def test_a_table_of_written_rows_has_a_head_and_bullets_are_escaped():
    table = block("{% call table_of(['<a>', 'b'], ['b']) %}<tr><td>{{ x }}</td></tr>{% endcall %}", x=SCRIPT)
    assert '<tr><th>&lt;a&gt;</th><th class="number">b</th></tr>' in table and "<script" not in table
    assert block("{{ bullets(['<b>']) }}").strip() == '<ul class="small"><li>&lt;b&gt;</li></ul>'


def test_templates_are_read_only_where_html_is_asked_for():
    code = (
        "import sys, sampan.plan.page, sampan.plan.validation_page, sampan.screen.page, sampan.bench.page; "
        "sys.exit('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0

"""`sampan screen` as its users meet it: one question, cases, a timeline, a matrix, and what is refused."""

import json

import pytest

from sampan.cli import main
from sampan.screen.report import MARKS
from sampan.screen.rules import NO_RULE, SEVERITY, load_rules
from well_formed import assert_well_formed

ASKED = ["--date", "2025-12-10", "--actor-hq", "CN", "--chip", "h200", "--site", "MY", "--relation", "buy"]


def screen(capsys, *arguments):
    status = main(["screen", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_an_answer_says_what_matched_since_when_and_where_it_was_read(capsys):
    status, out, _ = screen(capsys, *ASKED)
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "presumption_of_denial (confidence high)"
    assert "  US: presumption_of_denial" in lines
    assert "  presumption_of_denial: Headquarters test: D:5 or Macau parent, anywhere in the world" in lines
    assert "    US, since 2023-11-17; in force; confidence high" in lines
    assert any(line.startswith("    source: 15 CFR 744.23(a)(3)") and "https://" in line for line in lines)
    assert lines[-1] == (
        "74 rules, looked up to 2026-10-08. Screening of published rules, not legal advice; read the sources and ask counsel "
        "before you act."
    )


def test_json_has_the_keys_that_are_promised(capsys, tmp_path):
    _, out, _ = screen(capsys, *ASKED, "--json")
    document = json.loads(out)
    assert {"verdict", "worst_case", "confidence", "by_jurisdiction", "rules", "unknowns", "horizon"} <= document.keys()
    assert document["query"] == {
        "date": "2025-12-10", "relation": "buy", "site": "MY", "chip": "h200", "actor_hq": "CN",
    }  # fmt: skip
    path = tmp_path / "new" / "answer.json"
    status, out, _ = screen(capsys, *ASKED, "--json", path)
    assert (status, out) == (0, "")
    assert json.loads(path.read_text(encoding="utf-8")) == document


CASES = """
- n: a
  query: {date: '2025-12-20', actor_hq: BR, chip: h100_sxm, site: BR, relation: buy}
  verdict: no_rule
- n: b
  query: {date: '2025-12-10', actor_hq: CN, chip: h200, site: MY, relation: buy}
  verdict: licence_required
  also_ok: [presumption_of_denial]
"""


def test_cases_that_are_as_expected_pass(capsys, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(CASES, encoding="utf-8")
    assert screen(capsys, "--cases", path)[:2] == (0, "2 cases, 0 mismatches\n")


def test_a_case_that_is_not_is_told_and_the_status_is_1(capsys, tmp_path):
    path, out_path = tmp_path / "policy.yaml", tmp_path / "ran.json"
    path.write_text(CASES.replace("also_ok: [presumption_of_denial]", "also_ok: []"), encoding="utf-8")
    status, out, err = screen(capsys, "--cases", path)
    assert status == 1
    lines = out.splitlines()
    assert lines[0] == (
        "case b: presumption_of_denial, expected licence_required "
        "(date 2025-12-10, relation buy, site MY, chip h200, actor_hq CN)"
    )
    assert "  presumption_of_denial: us-2023-10-17-hq-d5" in lines
    assert lines[-1] == "2 cases, 1 mismatches"
    assert err == f"error: 1 of 2 cases are not as `{path}` expects\n"
    assert screen(capsys, "--cases", path, "--json", out_path)[0] == 1
    assert json.loads(out_path.read_text(encoding="utf-8"))["mismatches"] == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "it is not a list"),
        ("- n: 1\n  query: {}\n  verdict: fine", "case 1 has the verdict 'fine'"),
        ("- n: 1\n  verdict: no_rule", "case 1 has no `query`"),
    ],
)
def test_a_file_that_holds_no_cases_says_what_is_wrong(capsys, tmp_path, text, said):
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    status, _, err = screen(capsys, "--cases", path)
    assert status == 1
    assert err.splitlines()[:2] == [f"error: `{path}` is not a file of cases", f"  because {said}"]


def test_a_wrong_fact_of_a_case_names_the_case(capsys, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(CASES.replace("actor_hq: BR", "actor_hq: Brazil"), encoding="utf-8")
    assert screen(capsys, "--cases", path)[2].splitlines()[0] == (
        f"error: case a of `{path}`: `Brazil` of `actor_hq` is not a country"
    )


def test_a_timeline_is_a_table_and_a_page(capsys, tmp_path):
    page = tmp_path / "t.html"
    asked = ["--actor-hq", "CN", "--chip", "h20", "--site", "CN", "--relation", "buy"]
    status, out, _ = screen(capsys, "--timeline", *asked, "--html", page)
    assert status == 0
    assert out.splitlines()[0] == "2022-01-01  2025-04-08  no_rule                none of 74 rules matched"
    text = page.read_text(encoding="utf-8")
    assert_well_formed(text)
    assert "Licence requirement for H20 and MI308" in text
    assert text.count("<rect") >= 4


def test_a_matrix_hangs_on_letters_not_on_colour(capsys, tmp_path):
    page = tmp_path / "m.html"
    arguments = ["--matrix", "--date", "2026-02-15", "--actor-hq", "CN", "--relation", "buy", "--sites", "CN,MY,US"]
    status, out, _ = screen(capsys, *arguments, "--chips", "h200,ascend_910c", "--html", page)
    assert status == 0
    assert out.splitlines()[:3] == ["             CN  MY  US", "h200         c   D   . ", "ascend_910c  g   g   g "]
    text = page.read_text(encoding="utf-8")
    assert_well_formed(text)
    assert "<b>D</b>" in text
    assert 'title="presumption_of_denial: Headquarters test' in text
    assert len(set(MARKS.values())) == len(MARKS) == len(SEVERITY) + 1
    assert NO_RULE in MARKS


def test_the_rules_are_checked(capsys):
    assert screen(capsys, "--check-rules")[:2] == (
        0,
        f"{len(load_rules().rules)} rules, 16 firms, 5 groups; 0 faults\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--timeline", "--matrix"], "--timeline and --matrix are two questions"),
        ([*ASKED, "--html", "x.html"], "--html is for --timeline and --matrix"),
        ([*ASKED, "--sites", "MY"], "--sites and --chips are for --matrix"),
        (["--check-rules", "--site", "MY"], "--site is a fact of a question, and --check-rules asks none"),
        (["--matrix", "--date", "2026-01-01", "--relation", "buy"], "--matrix needs --sites"),
        ([*ASKED, "--matrix", "--sites", "MY"], "--site is one of --sites in a matrix"),
        (["--date", "2026-01-01"], "a question needs `relation`"),
        (["--relation", "buy"], "a question needs `date`"),
        (["--date", "tomorrow", "--relation", "buy"], "`tomorrow` of `date` is not a day"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_says_why(capsys, arguments, said):
    status, out, err = screen(capsys, *arguments)
    assert (status, out) == (1, "")
    assert err.splitlines()[0] == f"error: {said}"

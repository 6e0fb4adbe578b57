"""A rule's file: what it must have, and what is said of one that cannot be right."""

import datetime

import pytest

from sampan.errors import CatalogError
from sampan.screen.rules import FOLDER, Group, load_rules, read

GROUPS = {"D5": Group(members=frozenset({"CN"}), confidence="memory")}
RULE = """title = "t"
jurisdiction = "US"
effective_from = 2026-01-01
status = "in_force"
binding = true
binds = "all"
effect = "licence_required"
summary = "s"
source_title = "source"
source_url = "https://example.org"
source_date = 2026-01-01
confidence = "high"
checked = 2026-02-01
[[when]]
relation = ["buy"]
site = ["@D5"]
chip = { tpp_gte = 4800 }
[matches]
date = 2026-01-01
[differs]
date = 2026-01-01
"""


def test_a_rule_is_read(tmp_path):
    path = tmp_path / "us-1.toml"
    path.write_text(RULE, encoding="utf-8")
    rule = read(path, GROUPS)
    assert (rule.id, rule.begins, rule.effective_to) == ("us-1", datetime.date(2026, 1, 1), None)
    assert rule.is_in_force(datetime.date(2026, 1, 1))
    assert not rule.is_in_force(datetime.date(2025, 12, 31))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('title = "t"', 'titel = "t"', "it has `titel`, which is not a field; did you mean `title`?"),
        ('binds = "all"\n', "", "it has no `binds`"),
        ('"licence_required"', '"license_required"', "its `effect` is 'license_required'; did you mean `licence_required`?"),
        ('"in_force"', '"in force"', "its `status` is 'in force'; did you mean `in_force`?"),
        ('["buy"]', '["by"]', "its relation is `by`; did you mean `buy`?"),
        ('"@D5"', '"@D55"', "its condition `site` names the group `@D55`; did you mean `D5`?"),
        ("tpp_gte", "tpp_ge", "it bounds `tpp_ge` of a chip; did you mean `tpp_gte`"),
        ("site = [", "sites = [", "it has the condition `sites`, which is not one; did you mean `site`"),
        ('effective_from = 2026-01-01', "effective_from = 2026-01-01\neffective_to = 2025-01-01", "it ends before it begins"),
        ('source_url = "https://example.org"\n', "", "it has no `source_url`, and its confidence is 'high'"),
    ],
)  # fmt: skip
def test_a_wrong_file_says_what_is_wrong(tmp_path, old, new, said):
    path = tmp_path / "us-1.toml"
    assert old in RULE
    path.write_text(RULE.replace(old, new), encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        read(path, GROUPS)
    assert caught.value.what == "the rule file `us-1.toml` cannot be used"
    assert caught.value.because[0].startswith(said)


def test_groups_and_firms_are_spelled_out():
    known = load_rules()
    assert "CN" in known.countries(("@D5_or_MO",))
    assert known.countries(("US", "@TIER1")) >= {"US", "JP", "GB"}
    assert known.entities["zhipu"].listed_from == datetime.date(2025, 1, 16)
    assert len(list(FOLDER.glob("*.toml"))) == len(known.rules) + 2

"""Questions to rules: words in, a query out, and one clear error that names what is near."""

import datetime

import pytest

from sampan.errors import SampanError
from sampan.screen.query import read_query
from sampan.screen.rules import load_rules

KNOWN = load_rules()
ASKED = {"date": "2026-02-15", "relation": "buy"}


def test_words_become_a_query():
    query = read_query(
        {**ASKED, "chip": "H2O", "site": "sg", "actor_hq": "CN", "state_funded": "yes", "completion_pct": "20"}, KNOWN
    )
    assert query.date == datetime.date(2026, 2, 15)
    assert query.chip is not None
    assert (query.chip.name, query.site, query.state_funded, query.completion_pct) == ("h20", "SG", True, 20.0)
    assert query.certs_met is None


@pytest.mark.parametrize(
    ("given", "what", "hint"),
    [
        ({"sight": "SG"}, "`sight` is not a fact that is screened", "did you mean `site`?"),
        ({"date": None}, "a question needs `date`", "a day as in 2026-02-15"),
        ({"relation": None}, "a question needs `relation`", "buy, rent, operate, host, build, export_out, fab, invest"),
        ({"relation": "rents"}, "`rents` of `relation` is not known", "did you mean `rent`?"),
        ({"date": "15.2.2026"}, "`15.2.2026` of `date` is not a day", "year, month, day, as in 2026-02-15"),
        ({"date": "20260215"}, "`20260215` of `date` is not a day", "year, month, day, as in 2026-02-15"),
        ({"site": "UK"}, "`UK` of `site` is not a country", "did you mean `GB`?"),
        ({"site": "Atlantis"}, "`Atlantis` of `site` is not a country", "two letters of ISO 3166, as in CN, US, SG, MY"),
        ({"chip": "h10O"}, "no chip `h10O` is in the catalogue", "did you mean `h100`?"),
        ({"actor_id": "cambricom"}, "`cambricom` of `actor_id` is not known", "did you mean `cambricon`?"),
        ({"owned_by_listed_pct": 120}, "`120` of `owned_by_listed_pct` is not a percentage", "a number from 0 to 100"),
        ({"state_funded": "perhaps"}, "`perhaps` of `state_funded` is not yes or no", "yes or no"),
        ({"process_nm": -4}, "`-4` of `process_nm` is not an amount", "a number above 0"),
    ],
)  # fmt: skip
def test_a_wrong_fact_is_one_clear_error(given, what, hint):
    with pytest.raises(SampanError) as caught:
        read_query({**ASKED, **given}, KNOWN)
    assert (caught.value.what, caught.value.hint) == (what, hint)

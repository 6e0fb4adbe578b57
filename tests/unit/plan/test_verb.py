"""`sampan plan` as its users meet it: what is ranked, what is refused and in which words, and what it does not import."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from sampan import job as jobs
from sampan.catalog import load
from sampan.cli import main
from sampan.errors import PlanError, SampanError
from sampan.plan import verb
from sampan.plan.verb import PlanArguments, between

ROOT = Path(__file__).resolve().parents[3]
JOB = ROOT / "jobs" / "lora.toml"


@pytest.fixture
def job():
    return jobs.read(JOB, [])


@pytest.fixture
def big():
    return jobs.read(ROOT / "jobs" / "glm-image.toml", [])


def options(**given):
    return PlanArguments(**({"sites": ("sg",), "chips": ("h100_sxm",), "count": (1, 1)} | given))


def refused(call, *arguments, **named):
    with pytest.raises(SampanError) as caught:
        call(*arguments, **named)
    return caught.value.what, caught.value.because, caught.value.hint


def test_every_way_stands_at_every_site(job):
    found = verb.plan(job, options(chips=("h100_sxm", "a100_80"), sites=("sg", "my_johor"), count=(1, 2)))
    assert {(r.candidate.label, r.candidate.count, r.site.name) for r in found.rows} == {
        (chip, n, site) for chip in ("h100_sxm", "a100_80") for n in (1, 2) for site in ("sg", "my_johor")
    }  # fmt: skip
    usd = [row.money.usd.typical for row in found.rows if row.money.usd]
    assert usd == sorted(usd)
    assert found.pictures
    assert found.recipe is not None


def test_owned_chips_cost_their_electricity_alone(job):
    found = verb.plan(job, options(owned=[("h100_sxm", 1, "sg")]))
    (row,) = found.rows
    assert row.money.basis == "owned"
    assert row.energy.kwh is not None
    assert row.money.usd is not None
    price = load.site("sg").electricity_usd_per_kwh
    assert price is not None
    assert row.money.usd.typical == pytest.approx(row.energy.kwh.typical * price)
    more = verb.plan(job, options(owned=[("h100_sxm", 1, "sg")], count=(2, 2)))
    assert more.rows[0].money.basis == "rent", "two are not there"


def test_owned_chips_are_planned_though_nobody_named_them(job):
    found = verb.plan(job, options(owned=[("h20", 4, "my_johor")]))
    assert {row.candidate.label for row in found.rows} == {"h100_sxm", "h20"}
    assert {row.site.name for row in found.rows} == {"sg", "my_johor"}


def test_rows_that_miss_a_limit_come_last_and_say_so(job):
    all_of_it = verb.plan(job, options(count=(1, 4)))
    times = sorted(row.candidate.time_s.typical for row in all_of_it.rows)
    days = (times[0] + times[1]) / 2 / 86400
    found = verb.plan(job, options(count=(1, 4), deadline=days))
    assert [bool(row.misses) for row in found.rows] == [False] + [True] * (len(times) - 1)
    assert found.rows[-1].misses == (f"takes longer than {days:g} days",)
    poor = verb.plan(job, options(budget=1e-9))
    assert poor.rows[0].misses == ("costs more than 1e-09 USD",)


def test_a_chip_with_an_unknown_fact_is_left_out_and_the_rest_rank(job):
    found = verb.plan(job, options(chips=("h100_sxm", "thead_ppu")))
    assert [row.candidate.label for row in found.rows] == ["h100_sxm"]
    assert [(one.chip, one.reason) for one in found.infeasible] == [
        ("thead_ppu", "its time cannot be computed: nobody has published its peak in bf16 and its memory bandwidth")
    ]


def test_software_runs_on_the_chips_it_is_written_for(job):
    found = verb.plan(job, options(chips=("h100_sxm", "ascend_910b2"), frameworks=("mindspore",)))
    assert [row.candidate.label for row in found.rows] == ["ascend_910b2"]
    assert found.infeasible[0].reason == "it is written for chips of Huawei"


def test_what_fits_nowhere_says_what_would(big):
    console = Console(file=io.StringIO(), width=100)
    what, because, hint = refused(
        verb.plan_and_show,
        big,
        options(chips=("rtx4090",), frameworks=("torch",), stages=("decoder",)),
        console,
        name="big.toml",
    )
    assert what == "`big.toml` can be done on nothing that was asked for"
    (reason,) = because
    assert reason.startswith("1 x rtx4090, torch: decoder at 512 px: the job does not fit on 1 chip: the least, ")
    assert "and a chip has 21.0 GiB for it; " in reason
    assert reason.endswith(" chips would do")
    assert hint is None or " fits on " in hint


def test_a_misspelt_name_is_told(job):
    assert refused(verb.plan, job, options(chips=("h10O",)))[::2] == (
        "no chip `h10O` is in the catalogue", "did you mean `h100`?",
    )  # fmt: skip
    assert verb.plan(job, options(chips=("H2O",))).rows[0].candidate.label == "h20"
    assert refused(verb.plan, job, options(sites=("singapur",)))[0] == "no site `singapur` is in the catalogue"
    assert refused(verb.plan, job, options(frameworks=("pytroch",)))[::2] == (
        "`pytroch` is not a framework that can be planned", "did you mean `torch`?",
    )  # fmt: skip
    assert refused(verb.plan, job, options(stages=("decodr",)))[::2] == (
        "--stages: `decodr` is not a stage of this job", "its stages: ar, decoder, preparation",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "what", "hint"),
    [
        (
            {"validate": Path("a"), "compare": ("a", "b")},
            "--validate and --compare are two questions",
            "ask one at a time",
        ),
        ({"validate": Path("a"), "job": Path("j")}, "--validate takes no job", "leave JOB out"),
        ({"compare": ("a", "b"), "count": (1, 2)}, "--count is for a job", "leave --count out"),
        ({"job": Path("j"), "framework_a": "torch"}, "--framework-a is for --compare", "leave --framework-a out"),
        (
            {"validate": Path("a"), "overrides": ("seed=1",)},
            "--set changes a job, and none is given",
            "leave --set out",
        ),
    ],
)
def test_options_that_do_not_go_together(given, what, hint):
    assert refused(verb.check, PlanArguments(**given))[::2] == (what, hint)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "0"], "error: --count: a number of chips is from 1 to 65536, got 0\n"),
        (["--count", "-4"], "error: --count: a number of chips is from 1 to 65536, got -4\n"),
        (["--count", "8..2"], "error: --count: `8..2` runs downward; did you mean 2..8?\n"),
        (["--count", "many"], "error: --count: `many` is not a number of chips or MIN..MAX, as in 8 or 8..64\n"),
        (["--budget", "0"], "error: --budget: must be more than 0, got 0\n"),
        (["--owned", "h20"], "error: --owned: `h20` is not CHIP=N@SITE with N from 1 to 65536, as in h100_sxm=8@sg\n"),
        (["--owned", "a=0@sg"], "error: --owned: `a=0@sg` is not CHIP=N@SITE with N from 1 to 65536, as in h100_sxm=8@sg\n"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_status_2(capsys, arguments, said):
    assert main(["plan", str(JOB), *arguments]) == 2
    assert capsys.readouterr().err == f"{said}\nhint: sampan plan --help\n"


def test_counts_are_the_first_and_powers_and_three_times_them():
    assert between(5, 50) == [5, 6, 8, 12, 16, 24, 32, 48]
    assert between(7, 7) == [7]
    # what is tried up to a number is tried up to every greater one
    assert set(between(1, 100)) <= set(between(1, 1000))


def test_what_is_written_is_written_whole(tmp_path, capsys):
    out = tmp_path / "new" / "plan.json"
    page = tmp_path / "plan.html"
    status = main(
        ["plan", str(JOB), "--chips", "h20", "--sites", "sg", "--count", "1", "--json", str(out), "--html", str(page)]
    )
    assert status == 0
    said = capsys.readouterr()
    assert "h20" in said.out
    document = json.loads(out.read_text(encoding="utf-8"))
    assert document["what"] == "sampan plan"
    (row,) = document["rows"]
    assert row["time_s"]["low"] < row["time_s"]["typical"] < row["time_s"]["high"]
    assert sum(sum(stage["parts_s"].values()) * stage["num_steps"] for stage in row["stages"]) == pytest.approx(
        row["time_s"]["typical"]
    )
    assert document["chips"]["h20"]["sources"]
    assert document["sites"]["sg"]["sources"]
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "plan.html"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path, job):
    (tmp_path / "file").write_text("", encoding="utf-8")
    path = tmp_path / "file" / "plan.json"
    with pytest.raises(PlanError) as caught:
        verb.write({}, "", options(json=path))
    assert caught.value.what == f"`{path}` cannot be written"


def test_a_plan_needs_no_numbers_library_and_no_framework():
    code = (
        "import sys; from sampan.cli import main; "
        f"status = main(['plan', {str(JOB)!r}, '--chips', 'h20', '--sites', 'sg', '--count', '1']); "
        "heavy = ('numpy', 'scipy', 'torch', 'mindspore', 'tensorflow', 'PIL', 'pandas', 'jinja2'); "
        "found = [m for m in heavy if m in sys.modules]; "
        "sys.exit(f'imported {found}' if found else status)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr

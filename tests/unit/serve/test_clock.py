"""A machine's clock that is set: nothing is deleted by it, links hold as long as before, keys and rates go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sampan.serve import keys
from sampan.serve.clock import MAX_GAP_S, SteadyClock
from sampan.serve.settings import AdmissionLimits, Retention
from sampan.serve.store import ImageStore
from unit.serve.test_store import kept, record

DAY_S = 86_400.0
TEN_YEARS_S = 3_652 * DAY_S
START = 1_800_000_000.0


@dataclass
class Machine:
    """A machine whose clock can be set, and on which time passes."""

    wall_s: float = START
    elapsed_s: float = 1000.0

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall_s, lambda: self.elapsed_s)

    def live(self, seconds: float) -> None:
        self.wall_s += seconds
        self.elapsed_s += seconds

    def reboot(self, off_s: float) -> None:
        self.wall_s += off_s
        self.elapsed_s = 5.0


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def opened(machine: Machine, tmp_path: Path) -> Callable[[], ImageStore]:
    return lambda: ImageStore(tmp_path / "data", Retention(days=30), machine.clock())


@pytest.mark.parametrize(("jump_s", "said"), [(TEN_YEARS_S, "set forward by"), (-TEN_YEARS_S, "set back by")])
def test_a_clock_that_jumps_by_ten_years_deletes_nothing_and_ages_go_on(
    machine: Machine, opened: Callable[[], ImageStore], caplog: pytest.LogCaptureFixture, jump_s: float, said: str
):
    store = opened()
    old = kept(store, record())
    machine.live(20 * DAY_S)
    young = kept(store, record())
    assert store.sweep() == 0 and caplog.text == ""
    machine.wall_s += jump_s
    with caplog.at_level(logging.WARNING):
        assert store.sweep() == 0
        assert store.sweep() == 0
    assert caplog.text.count(said) == 1  # once, and not every half minute
    late = kept(store, record())
    machine.live(11 * DAY_S)  # 31 of them since the first
    assert store.sweep() == 1
    assert store.content(old) is None and store.content(young) is not None and store.content(late) is not None
    machine.wall_s -= jump_s  # somebody sets it right
    assert store.sweep() == 0
    machine.live(20 * DAY_S)
    assert store.sweep() == 2


@pytest.mark.parametrize("jump_s", [TEN_YEARS_S, -TEN_YEARS_S, MAX_GAP_S + 1, -1.0])
def test_a_clock_that_jumped_between_two_runs_deletes_nothing_and_is_said(
    machine: Machine, opened: Callable[[], ImageStore], caplog: pytest.LogCaptureFixture, jump_s: float
):
    store = opened()
    one = kept(store, record())
    machine.live(29 * DAY_S)
    store.sweep()
    store.close()
    machine.reboot(jump_s)
    store = opened()
    assert "that is not believed" in caplog.text
    assert store.recover()["interrupted"] == 0 and store.content(one) is not None
    machine.live(2 * DAY_S)
    assert store.sweep() == 1 and store.content(one) is None


def test_days_in_which_the_server_was_off_count(machine: Machine, opened: Callable[[], ImageStore], caplog: Any):
    store = opened()
    one = kept(store, record())
    store.sweep()
    store.close()
    machine.reboot(29 * DAY_S)
    store = opened()
    store.recover()
    assert store.content(one) is not None and caplog.text == ""
    store.close()
    machine.reboot(2 * DAY_S)
    store = opened()
    store.recover()
    assert store.content(one) is None


def test_a_sleep_of_the_machine_is_no_jump(machine: Machine, opened: Callable[[], ImageStore], caplog: Any):
    store = opened()
    machine.live(3 * DAY_S)
    store.sweep()
    machine.wall_s += 59  # as clocks of machines drift, and are put right
    store.sweep()
    assert caplog.text == ""


def test_links_hold_an_hour_whatever_the_clock_does(machine: Machine, opened: Callable[[], ImageStore]):
    store = opened()
    secret, clock = store.secret(), store.clock
    query = dict(part.split("=") for part in keys.sign(secret, "img_" + "0" * 24, clock.now()).split("&"))

    def holds() -> bool:
        return keys.is_signed(secret, "img_" + "0" * 24, query["until"], query["signature"], clock.now())

    for jump_s in (TEN_YEARS_S, -2 * TEN_YEARS_S):
        machine.wall_s += jump_s
        assert holds()
    machine.live(3599)
    assert holds()
    machine.live(2)
    assert not holds()


def test_a_key_made_anew_is_another_whatever_the_clock_says(machine: Machine, opened: Callable[[], ImageStore]):
    store = opened()
    owners = []
    for jump_s in (0.0, 0.0, -TEN_YEARS_S, 2 * TEN_YEARS_S):
        machine.wall_s += jump_s
        store.close()
        store = opened()
        assert store.add_key("alice", keys.hash_key("secret"))
        owners.append(keys.owner(store, "Bearer secret"))
        store.remove_key("alice")
    assert len(set(owners)) == 4 and None not in owners


def test_over_http_a_jump_changes_neither_pictures_nor_links_nor_rates(
    start: Callable[..., Any], tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    keys.change(tmp_path / "data", add="alice", remove=None, put=said.append)
    monkeypatch.setattr("sampan.serve.store.SteadyClock", machine.clock)
    monkeypatch.setattr("time.time", lambda: machine.wall_s)
    running = start(retention=Retention(days=30), limits=AdmissionLimits(per_minute=2))
    running.client.headers["authorization"] = f"Bearer {said[0]}"
    made = running.paint(response_format="url").json()["data"][0]
    link = made["url"].removeprefix(str(running.client.base_url))
    for jump_s in (TEN_YEARS_S, -2 * TEN_YEARS_S):
        machine.wall_s += jump_s
        running.server.store.sweep()
        assert running.client.get(f"/v1/images/{made['id']}").status_code == 200
        assert running.client.get(link, headers={"authorization": ""}).status_code == 200
    assert running.paint().status_code == 200
    refused = running.paint()
    assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 60

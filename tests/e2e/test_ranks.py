"""torchrun: stages give the losses of one process; what goes wrong on one rank ends all, and the last checkpoint is whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.command import draw_smoke_pictures
from sampan.checkpoint import run

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "smoke.toml"
FAULTY = Path(__file__).with_name("faulty_rank.py")
TOLERANCE = 1e-5
SHARED = [
    f"stage.{stage}.{setting}={value}"
    for stage, steps, size in (("vae", 4, 1), ("tokenizer", 4, 2), ("glyph", 4, 4), ("ar", 6, 2), ("decoder", 4, 2))
    for setting, value in (("num_steps", steps), ("micro_batch_size", size), ("grad_accum_steps", 4))
] + ["place.dtype=fp32", "train.save_every=2", "train.keep_last=9"]
LONG = ["stage.vae.num_steps=4000", "train.save_every=5", "train.keep_last=3", "stage.vae.grad_accum_steps=4"]
LONG += ["stage.vae.micro_batch_size=1", "place.dtype=fp32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_smoke_pictures(tmp_path_factory.mktemp("torchrun"))


class Ranks:
    """A training of so many ranks under torchrun; 1 is without."""

    def __init__(self, folder: Path, out: str, ranks: int, *settings: str, fault: str = "", **environment: str):
        self.folder, self.out, self.said = folder, folder / out, folder / f"{out}-{time.monotonic_ns()}.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={port}"]
        words = [str(FAULTY), "train", str(JOB), *(w for s in (f"out={out}", *settings) for w in ("--set", s))]
        words += ["--resume"] if self.out.exists() else []
        place = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "FAULT": fault, **environment}
        with open(self.said, "w") as said:
            self.process = subprocess.Popen(
                [*launcher, *words], cwd=folder, env=place, stdout=said, stderr=said, start_new_session=True
            )

    def end(self, within_s: float = 600) -> tuple[int, str]:
        """Return the status and what was said."""
        try:
            status = self.process.wait(within_s)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
        return status, self.said.read_text()

    def reach(self, step: int) -> None:
        """Wait until the first stage has taken so many steps."""
        for _ in range(1200):
            if len(losses(self.out)) >= step:
                return
            assert self.process.poll() is None, self.said.read_text()
            time.sleep(0.1)
        raise AssertionError(self.said.read_text())

    def worker(self, rank: int) -> int:
        """Return the process of a rank."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    values = (folder / "environ").read_bytes().split(b"\0")
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, ValueError):
                    continue
                if parent == self.process.pid and f"RANK={rank}".encode() in values:
                    return int(folder.name)
        raise AssertionError(f"no rank {rank}")


def losses(out: Path) -> dict[tuple[str, int], float]:
    if not (out / "log.jsonl").is_file():
        return {}
    lines = (out / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return {(row["stage"], row["step"]): row["loss"] for row in map(json.loads, lines) if "loss" in row}


def assert_same(out: Path, other: Path) -> None:
    mine, wanted = losses(out), losses(other)
    assert mine.keys() == wanted.keys()
    for place, loss in wanted.items():
        assert mine[place] == pytest.approx(loss, rel=TOLERANCE), place


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    status, said = Ranks(place, "one", 1, *SHARED).end()
    assert status == 0, said
    return place / "one"


@pytest.mark.parametrize(
    ("ranks", "layout"),
    [(2, ()), (3, ()), (4, ("place.dp_replicate=2", "place.dp_shard=2")), (2, ("place.parallel=ddp",))],
)
def test_every_stage_has_the_losses_of_one_process(place: Path, alone: Path, ranks: int, layout: tuple[str, ...]):
    out = "-".join([f"by-{ranks}", *(setting.replace("=", "-") for setting in layout)])
    status, said = Ranks(place, out, ranks, *SHARED, *layout).end()
    assert status == 0, said
    assert said.count(f"{out}/model") == 1  # one rank speaks
    assert "Warning" not in said
    assert_same(place / out, alone)


@pytest.fixture(scope="module")
def by_four(place: Path) -> Path:
    layout = ("place.dp_replicate=2", "place.dp_shard=2")
    status, said = Ranks(place, "by-four", 4, *SHARED, *layout).end()
    assert status == 0, said
    return place / "by-four"


def cut(out: Path, stage: str, step: int) -> None:
    """Take a run back to a checkpoint of a stage."""
    shutil.rmtree(out / "model", ignore_errors=True)
    stages = ("vae", "tokenizer", "glyph", "ar", "decoder")
    for later in stages[stages.index(stage) + 1 :]:
        shutil.rmtree(out / "stages" / later, ignore_errors=True)
    for folder in (out / "stages" / stage).iterdir():
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)


def test_a_run_goes_on_with_any_number_of_ranks(place: Path, alone: Path, by_four: Path):
    """Four ranks, then three from the middle of the generator, then one from the middle of the decoder."""
    shutil.copytree(by_four, place / "further")
    for stage, ranks in (("ar", 3), ("decoder", 1)):
        cut(place / "further", stage, 2)
        status, said = Ranks(place, "further", ranks, *SHARED).end()
        assert status == 0 and f"{stage}: goes on at step 2" in said, said
    assert_same(place / "further", alone)
    state = run.state_of(run.find_step(place / "further", "ar", 6))
    assert [entry["ranks"] for entry in state["history"]] == [4, 3]


def test_a_run_goes_to_mindspore_and_back(place: Path, alone: Path, by_four: Path):
    shutil.copytree(by_four, place / "carried")
    cut(place / "carried", "ar", 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["train", str(JOB), *(w for s in ("out=carried", *SHARED) for w in ("--set", s)), "--resume"]
    launcher = Path(sys.executable).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{launcher}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [launcher / "msrun", "--worker_num=2", "--local_worker_num=2", f"--master_port={port}", "--log_dir=msrun",
         "--join=True", "python", "-m", "sampan", *words, "--framework", "mindspore"],
        cwd=place, env=environment, text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cut(place / "carried", "decoder", 2)
    status, said = Ranks(place, "carried", 1, *SHARED).end()
    assert status == 0, said
    mine, wanted = losses(place / "carried"), losses(alone)
    assert mine.keys() == wanted.keys()
    for step, loss in wanted.items():
        assert mine[step] == pytest.approx(loss, rel=5e-5), step
    state = run.state_of(run.find_step(place / "carried", "decoder", 4))
    assert [(entry["framework"], entry["ranks"]) for entry in state["history"]] == [("mindspore", 2), ("torch", 1)]


@pytest.mark.parametrize("layout", [(), ("place.parallel=fsdp",)])
def test_a_lora_has_the_losses_of_one_process(place: Path, alone: Path, layout: tuple[str, ...]):
    lora = ["train.method=lora", 'train.stages=["ar","decoder"]', f"model.start={alone / 'model'}", "model.override={}"]
    lora += ["stage.ar.grad_accum_steps=3", "stage.decoder.grad_accum_steps=3"]
    if not (place / "lora-one").exists():
        status, said = Ranks(place, "lora-one", 1, *SHARED, *lora).end()
        assert status == 0, said
    out = f"lora-{len(layout)}"
    status, said = Ranks(place, out, 2, *SHARED, *lora, *layout).end()
    assert status == 0, said
    assert_same(place / out, place / "lora-one")


@pytest.fixture
def begun(place: Path, request: pytest.FixtureRequest) -> Iterator[Ranks]:
    ranks, fault, more, environment = request.param
    ours = Ranks(place, f"{request.node.name.split('[')[0][-60:]}", ranks, *LONG, *more, fault=fault, **environment)
    yield ours
    if ours.process.poll() is None:
        os.killpg(ours.process.pid, signal.SIGKILL)


def newest(out: Path) -> int:
    folder, notes = run.newest(out, "vae")
    assert folder is not None and not notes
    return int(run.read_state(folder)["step"])


def goes_on(begun: Ranks, ranks: int, to: int) -> None:
    """Go on to a step and to the end of the stage."""
    again = Ranks(begun.folder, begun.out.name, ranks, *LONG)
    try:
        again.reach(to)
    finally:
        os.killpg(again.process.pid, signal.SIGKILL)
        again.process.wait()


@pytest.mark.parametrize("begun", [(4, "", (), {})], indirect=True)
def test_the_others_end_when_a_rank_is_killed(begun: Ranks):
    begun.reach(12)
    os.kill(begun.worker(2), signal.SIGKILL)
    begun_s = time.monotonic()
    status, said = begun.end(60)
    assert status != 0 and time.monotonic() - begun_s < 60
    assert "SIGKILL" in said
    reached = len(losses(begun.out))
    assert reached - newest(begun.out) <= 10  # an interval, and the one whose save was under way
    goes_on(begun, 2, reached + 3)


@pytest.mark.parametrize("begun", [(2, "", ("place.rank_timeout_s=6",), {})], indirect=True)
def test_a_rank_that_stands_still_is_named(begun: Ranks):
    begun.reach(6)
    stopped = begun.worker(1)
    os.kill(stopped, signal.SIGSTOP)
    try:
        status, said = begun.end(60)
    finally:
        os.kill(stopped, signal.SIGKILL) if Path(f"/proc/{stopped}").exists() else None
    assert status != 0
    assert "rank 1 of 2 has shown no sign of life for 6 s" in said
    assert "most recent call first" in said and "stage_trainer.py" in said
    assert newest(begun.out) >= 5


@pytest.mark.parametrize("begun", [(2, "raise", (), {})], indirect=True)
def test_an_error_of_one_rank_ends_all(begun: Ranks):
    status, said = begun.end(60)
    assert status != 0
    assert said.count("ArithmeticError: a planted fault") == 1 and "[rank1]" in said
    assert newest(begun.out) == 5


@pytest.mark.parametrize("begun", [(2, "disk", (), {})], indirect=True)
def test_a_rank_that_cannot_write_is_named(begun: Ranks):
    status, said = begun.end(90)
    assert status != 0
    assert said.count("error: the checkpoint") == 1
    assert "rank 1 of 2: [Errno 27] File too large" in said
    assert not list((begun.out / "stages" / "vae").iterdir())


@pytest.mark.parametrize(
    ("begun", "number"),
    [
        ((2, "", (), {}), signal.SIGTERM),
        ((2, "", (), {"PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGUSR1"}), signal.SIGUSR1),
    ],
    indirect=["begun"],
)
def test_a_signal_to_the_launcher_saves_after_the_step(begun: Ranks, number: signal.Signals):
    begun.reach(7 if number == signal.SIGTERM else 20)
    os.kill(begun.process.pid, number)
    status, said = begun.end(60)
    assert status != 0 and "stopped at step" in said
    assert newest(begun.out) == len(losses(begun.out))

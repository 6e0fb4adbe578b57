"""A real disk without room: a tmpfs of its own for each test, which no other program sees and which goes with the process."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.job import parse
from unit.train.conftest import train, write_job

Measured = Callable[[str, object], None]


def in_own_mounts(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that sees mounts of its own; those it makes end with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def allowed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where no disk can be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("this system has no program `unshare`, so no small disk can be mounted")
    place = tmp_path_factory.mktemp("disk")
    tried = in_own_mounts(f"mount -t tmpfs -o size=64k tmpfs {shlex.quote(str(place))}")
    if tried.returncode:
        pytest.skip(f"this machine lets nobody mount a disk: {tried.stderr.strip()}")


@pytest.fixture(scope="module")
def work(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures, and a job of one stage that saves after each of 24 steps."""
    place = tmp_path_factory.mktemp("work")
    shutil.copytree(tiny_folder, place / "model")
    text = write_job(place, place / "model")
    for line in ("save_every = 2", 'stages = ["ar", "decoder"]'):
        assert line in text
    text = text.replace("save_every = 2", "save_every = 1")
    (place / "job.toml").write_text(text.replace('stages = ["ar", "decoder"]', 'stages = ["ar"]'), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    """A finished run of two steps."""
    text = (work / "job.toml").read_text(encoding="utf-8")
    return train(parse(text, [f"out={work}/trained", "stage.ar.num_steps=2"]))


def sampan(*arguments: str | Path) -> str:
    """Return a command line of a shell."""
    return shlex.join([sys.executable, "-m", "sampan", *map(str, arguments)])


FILL = "dd if=/dev/zero of=$DISK/filler bs=4k 2>/dev/null; sync; "


def on_disk(size: str, work: Path, tmp_path: Path, script: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run a script with a disk of a size at $DISK; return how it ended, and which files were on the disk then."""
    disk, listed = tmp_path / "disk", tmp_path / "files"
    disk.mkdir()
    done = in_own_mounts(
        f"DISK={shlex.quote(str(disk))}; cd {shlex.quote(str(work))}; mount -t tmpfs -o size={size} tmpfs $DISK || exit 99;"
        f"{script}\nend=$?; (cd $DISK && find . -type f | sort) > {shlex.quote(str(listed))}; exit $end"
    )
    assert done.returncode != 99 and "Traceback" not in done.stderr, done.stderr
    return done, listed.read_text(encoding="utf-8").split()


def test_generate_says_it_before_it_paints_and_leaves_nothing(work: Path, tmp_path: Path):
    verb = sampan("generate", "a boat", "--model", "model", "--device", "cpu", "--size", "64x64", "--steps", "1")
    done, files = on_disk("64k", work, tmp_path, f"{FILL}{verb} --out $DISK/x.png")
    assert done.returncode == 1 and files == ["./filler"]
    assert f"error: cannot write `{tmp_path}/disk/x.png`\n  because [Errno 28] No space left on device" in done.stderr
    assert "writing tokens" not in done.stderr


@pytest.mark.slow
def test_generate_that_loses_its_room_meanwhile_says_what_is_lost(work: Path, tmp_path: Path):
    """The disk holds what one picture needs at most; another program fills it once that was looked at."""
    verb = sampan(
        "generate", "a boat", "--model", "model", "--device", "cpu", "--size", "64x64", "--steps", "400", "--seed", "3"
    )
    # the folder's time changes when its room is looked at
    script = (
        f"before=$(stat -c %y $DISK); {verb} --out $DISK/x.png & run=$!;"
        'while [ "$(stat -c %y $DISK)" = "$before" ]; do sleep 0.02; kill -0 $run || exit 98; done;'
        f"sleep 0.3; {FILL} wait $run"
    )
    done, files = on_disk("64k", work, tmp_path, script)
    assert done.returncode == 1 and files == ["./filler"]
    assert "No space left on device" in done.stderr
    assert "1 of 1 painted pictures are lost" in done.stderr and "--seed 3: the same pictures come out" in done.stderr


@pytest.mark.slow
def test_training_keeps_what_it_has_and_goes_on_when_there_is_room(
    work: Path, tmp_path: Path, record_property: Measured
):
    """The disk is filled once the first checkpoint is there; then it is emptied, and the run is the straight one."""
    verb = sampan("train", "job.toml", "--resume")
    straight, again = f"--set out={tmp_path}/straight", "--set out=$DISK/run"
    script = (
        f"{verb} {straight} --set data.cache={tmp_path}/cache-1 || exit 97;"
        f"{verb} {again} --set data.cache={tmp_path}/cache-2 2>{tmp_path}/said & run=$!;"
        "while [ ! -e $DISK/run/stages/ar/step-00000001 ]; do sleep 0.05; kill -0 $run || exit 98; done;"
        f"{FILL} wait $run; echo $? > {tmp_path}/code; ls -A $DISK/run/stages/ar > {tmp_path}/left; rm $DISK/filler;"
        f"{verb} {again} --set data.cache={tmp_path}/cache-2 || exit 96; cp -r $DISK/run {tmp_path}/run"
    )
    done, _ = on_disk("256m", work, tmp_path, script)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert (tmp_path / "code").read_text(encoding="utf-8").strip() == "1", said
    assert "No space left on device" in said and "go on with --resume" in said and "Traceback" not in said
    left = (tmp_path / "left").read_text(encoding="utf-8").split()
    assert left and all(name.startswith("step-") for name in left)  # nothing half written
    names = [
        path.relative_to(tmp_path / "straight/model") for path in (tmp_path / "straight/model").rglob("*.safetensors")
    ]
    assert len(names) >= 4
    for name in names:
        assert (tmp_path / "run/model" / name).read_bytes() == (tmp_path / "straight/model" / name).read_bytes()
    record_property("files of the same bytes after a full disk", len(names))


@pytest.mark.slow
def test_training_on_a_disk_that_is_too_small_is_refused_before_the_first_step(work: Path, tmp_path: Path):
    verb = sampan("train", "job.toml")
    script = f"{verb} --set out=$DISK/run --set data.cache={tmp_path}/cache"
    done, files = on_disk("600k", work, tmp_path, script)
    assert done.returncode == 1 and not [name for name in files if "/stages/" in name]
    assert "free" in done.stderr or "No space left" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "size"), [("export", "200k"), ("prepare", "48k")])
def test_what_is_half_written_goes_away(verb: str, size: str, work: Path, trained: Path, tmp_path: Path):
    if verb == "export":
        script = f"{sampan('checkpoint', 'export', trained)} $DISK/out"
    else:
        script = f"{sampan('data', 'prepare', 'job.toml')} --set out={tmp_path}/run --set data.cache=$DISK/cache"
    done, files = on_disk(size, work, tmp_path, script)
    assert done.returncode == 1, done.stderr
    assert "free there" in done.stderr or "No space left on device" in done.stderr
    assert not [name for name in files if ".tmp" in name or ".writing" in name or name.startswith("./out")]


@pytest.mark.slow
def test_eval_says_it_before_it_paints(work: Path, tmp_path: Path):
    verb = sampan(
        "eval", "--suite", "edit", "--count", "1", "--model", "model", "--size", "64", "--steps", "1", "--device", "cpu"
    )
    script = f"{FILL}{verb} --keep {tmp_path}/keep --json $DISK/record.json --html $DISK/page.html"
    done, files = on_disk("64k", work, tmp_path, script)
    assert done.returncode == 1 and files == ["./filler"]
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("verb", ["generate", "export"])
def test_a_disk_that_cannot_be_written_is_said(verb: str, work: Path, trained: Path, tmp_path: Path):
    line = sampan("checkpoint", "export", trained) + " $DISK/out"
    if verb == "generate":
        line = sampan("generate", "a boat", "--model", "model", "--device", "cpu") + " --out $DISK/x.png"
    done, files = on_disk("64m", work, tmp_path, f"mount -o remount,ro $DISK; {line}")
    assert done.returncode == 1 and files == [] and "Read-only file system" in done.stderr


@pytest.mark.slow
def test_a_model_on_a_disk_that_cannot_be_written_paints(work: Path, tmp_path: Path):
    verb = sampan("generate", "a boat", "--model", "$DISK/model", "--device", "cpu", "--size", "64x64", "--steps", "1")
    script = f"cp -r model $DISK/model; mount -o remount,ro $DISK; {verb} --out {tmp_path}/x.png"
    script = script.replace("'$DISK/model'", "$DISK/model")
    done, _ = on_disk("64m", work, tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").stat().st_size > 1000

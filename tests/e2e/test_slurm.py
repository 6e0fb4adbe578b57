"""`sampan launch --to slurm --submit` on a real Slurm: two ranks, a USR1, the queue again, and the bytes of a straight run.

Debian's slurmctld, slurmd, slurm-client and munge are all it takes, and root; two nodes are daemons of this machine.
MindSpore's ranks stand for all: `msrun` starts two on a node. (On two nodes of one machine it takes each for the first.)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.command import sampan

_TOOLS = ("slurmctld", "slurmd", "sbatch", "munged")
_MISSING = [name for name in _TOOLS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(_MISSING), reason=f"Slurm is not installed: {', '.join(_MISSING)}"),
    pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="the daemons of Slurm are started as root"),
]

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"vae": 8, "tokenizer": 2, "glyph": 2, "ar": 2, "decoder": 2}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def config(folder: Path) -> str:
    host = socket.gethostname()
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 State=UNKNOWN"
        for name in ("n1", "n2")
    )
    return f"""ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
{nodes}
PartitionName=trial Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def queued(environment: dict[str, str]) -> list[str]:
    """Return the numbers of the jobs that wait, run or end."""
    done = subprocess.run(["squeue", "-h", "-o", "%i"], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.fixture(scope="module")
def cluster():
    """A controller and two nodes, for as long as the tests run."""
    folder = Path(
        f"/tmp/sampan-slurm-{os.getpid()}"
    )  # munge asks that nobody else may write any folder above its socket
    (folder / "munge").mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(config(folder), "utf-8")
    version = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"
    (folder / "cgroup.conf").write_text(f"CgroupPlugin=cgroup/{version}\nCgroupMountpoint=/sys/fs/cgroup\n", "utf-8")
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    for path in (folder / "munge", folder / "munge" / "key"):
        shutil.chown(path, "munge", "munge")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}={folder}/munge/{file}" for name, file in (
        ("key-file", "key"), ("socket", "munge.sock"), ("pid-file", "munged.pid"), ("log-file", "log"), ("seed-file", "seed"),
    )]  # fmt: skip
    try:
        for command in (
            ["runuser", "-u", "munge", "--", "munged", *munge], ["slurmctld"], ["slurmd", "-N", "n1"], ["slurmd", "-N", "n2"]
        ):  # fmt: skip
            subprocess.run(command, env=environment, check=True, timeout=30)
        yield environment
    finally:
        if (folder / "slurmctld.pid").exists():
            for number in queued(environment):
                subprocess.run(["scancel", number], env=environment, check=False)
            ends = time.monotonic() + 60
            while queued(environment) and time.monotonic() < ends:
                time.sleep(1)
        for pid in (folder / "n1.pid", folder / "n2.pid", folder / "slurmctld.pid", folder / "munge" / "munged.pid"):
            if pid.exists():
                os.kill(int(pid.read_text()), signal.SIGTERM)
        time.sleep(2)
        shutil.rmtree(folder, ignore_errors=True)


def write_job(place: Path) -> None:
    text = (ROOT / "jobs" / "smoke.toml").read_text("utf-8").replace("save_every = 5", "save_every = 1000")
    stages = "".join(
        f"[stage.{name}]\nnum_steps = {steps}\nmicro_batch_size = {8 if name == 'glyph' else 2}\ngrad_accum_steps = 2\n\n"
        for name, steps in STEPS.items()
    )
    machine = '[place]\nframework = "mindspore"\ndevice = "cpu"\nthreads = 1\n'
    (place / "job.toml").write_text(text[: text.index("[stage.vae]")] + stages + machine, "utf-8")


def submitted(place: Path, job: str, out: str, environment: dict[str, str]) -> str:
    """Launch the job, and return its number in the queue."""
    programs = str(Path(sys.executable).parent)
    done = subprocess.run(
        [sys.executable, "-m", "sampan", "launch", job, "--to", "slurm", "--nodes", "1", "--chips-per-node", "2",
         "--set", f"out={out}", "--out", f"launch/{Path(out).name}.sh", "--address", "127.0.0.1", "--port", str(free_port()),
         "--hours", "1", "--submit"],
        cwd=place, env={**environment, "OMP_NUM_THREADS": "1", "PATH": f"{programs}:{environment['PATH']}"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("Submitted batch job ")[1].split()[0]


def facts(number: str, environment: dict[str, str]) -> dict[str, str]:
    said = subprocess.run(
        ["scontrol", "show", "job", number], env=environment, capture_output=True, text=True, check=True
    )
    return dict(word.split("=", 1) for word in said.stdout.split() if "=" in word)


def wait_for(what, seconds: float, why):
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, why()
        time.sleep(1)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def weights(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "model").rglob("*.safetensors"))
    }


def test_a_job_that_is_told_to_stop_saves_queues_again_and_ends_as_if_it_had_not_been(cluster, tmp_path):
    write_job(tmp_path)
    sampan("data", "emoji", "runs/smoke-pictures", "--count", "8", "--size", "64", "--edits", "1", cwd=tmp_path)
    stopped, straight = tmp_path / "runs" / "stopped", tmp_path / "runs" / "straight"

    def logs() -> str:
        return "".join(
            path.read_text("utf-8", errors="replace")[-3000:] for path in (tmp_path / "launch").glob("*.log")
        )

    number = submitted(tmp_path, "job.toml", "runs/stopped", cluster)
    wait_for(lambda: len(rows(stopped / "log.jsonl")) >= 2, 400, logs)
    # what Slurm itself does, told by --signal=B:USR1@300, when the time is nearly over
    subprocess.run(["scancel", "--batch", "--signal=USR1", number], env=cluster, check=True)
    wait_for(lambda: facts(number, cluster)["Restarts"] == "1", 200, logs)
    saved = [event["step"] for event in rows(stopped / "events.jsonl") if event["event"] == "save"]
    assert len(saved) == 1
    assert 2 <= saved[0] < STEPS["vae"]
    assert rows(stopped / "events.jsonl")[-1]["outcome"] == "stopped"
    shutil.copy(tmp_path / "job.toml", tmp_path / "straight.toml")
    other = submitted(tmp_path, "straight.toml", "runs/straight", cluster)
    # the queue holds a job back for two minutes before its second start
    wait_for(lambda: facts(number, cluster)["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT"), 700, logs)
    assert facts(number, cluster)["JobState"] == "COMPLETED", logs()
    assert [event["step"] for event in rows(stopped / "events.jsonl") if event["event"] == "resume"] == saved
    assert "Failed to init the tcp server" not in logs(), "a process of the first start outlived it"
    assert {event["ranks"] for event in rows(stopped / "events.jsonl") if event["event"] == "device"} == {2}

    number = other
    wait_for(lambda: facts(number, cluster)["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT"), 500, logs)
    assert facts(number, cluster)["JobState"] == "COMPLETED", logs()
    assert weights(straight)
    assert weights(stopped) == weights(straight)

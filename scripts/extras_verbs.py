"""What scripts/extras_check.py does with an installed wheel: the verbs of each extra, and what is said without one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINS = ("torch", "mindspore")
PACKAGES = (
    "numpy", "torch", "mindspore", "ml_dtypes", "tensorflow-cpu", "emoji", "uharfbuzz", "pyarrow", "datasets", "matplotlib",
    "tensorboard", "wandb", "fastapi", "uvicorn", "python-multipart", "prometheus-client",
)  # fmt: skip
LONGEST_S = 900
# the smallest model that has all parts, and a step or two of each; quoted as the shell is not there
TINY = (
    "data.path=signs", "train.save_every=5", "place.threads=2",
    "model.override.geometry={prior_px=16,preview_side=2,default_px=64}",
    "model.override.processor={min_pixels=4096,max_pixels=65536}",
    "model.override.text={num_hidden_layers=2}", "model.override.vision={depth=1}", "model.override.dit={num_layers=2}",
    *(f"stage.{name}.num_steps=2" for name in ("vae", "tokenizer", "glyph", "ar", "decoder")),
    *(f"stage.{name}.micro_batch_size=2" for name in ("vae", "tokenizer", "glyph", "ar", "decoder")),
)  # fmt: skip
PARQUET = """
import io, pyarrow as pa
from pathlib import Path
from PIL import Image
from pyarrow import parquet
def png(side):
    out = io.BytesIO(); Image.new("RGB", (64, 64), (side, 0, 0)).save(out, "PNG"); return out.getvalue()
cells = [{"bytes": png(number * 20), "path": f"{number}.png"} for number in range(8)]
Path("birds").mkdir()
table = pa.table({"image": cells, "text": [f"a bird, number {number}" for number in range(8)]})
parquet.write_table(table, "birds/train-00000-of-00001.parquet")
"""
READ = """
from sampan.data.readers import hub, parquet
for read in (parquet.read, hub.read):
    samples = read("birds").samples
    assert len(samples) == 8, samples
    assert samples[3].image.read().startswith(b"\\x89PNG"), samples[3]
"""
DRAW = """
import json; from pathlib import Path; from sampan.train import plot
rows = [json.dumps({"stage": "vae", "step": step, "loss": 1 / step, "lr": 1e-3}) for step in range(1, 30)]
Path("log.jsonl").write_text("\\n".join(rows)); plot.draw(Path("log.jsonl"), Path("loss.png"))
assert Path("loss.png").read_bytes().startswith(b"\\x89PNG")
"""


class CheckFailed(Exception):
    """A verb that did not do what it should; the text says which, and what it said."""


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of a user who has the environment in a folder and nothing of this checkout."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_CONSTRAINT")
    kept = {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("SAMPAN_")}
    caches = {"HF_HOME": str(folder.parent / "huggingface"), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    return {**kept, **caches, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and a folder to work in.

    Args:
        python: Its interpreter.
        version: Of Python.
    """

    python: Path
    work: Path
    extras: tuple[str, ...]
    version: str

    @property
    def framework(self) -> str | None:
        """The framework that trains here by default."""
        return next((name for name in TRAINS if self.has(name)), None)

    def has(self, extra: str) -> bool:
        """Say whether an extra is here; MindSpore has no build for the newest Python."""
        return extra in self.extras and not (extra == "mindspore" and self.version.startswith("3.13"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its interpreter in the folder."""
        self.work.mkdir(exist_ok=True)
        return subprocess.run(
            [self.python, *arguments], cwd=self.work, env=environment(self.python.parents[1]), check=False,
            capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=LONGEST_S,
        )  # fmt: skip

    def does(self, *arguments: str) -> str:
        """Run a verb and return what it prints.

        Raises:
            CheckFailed: Its status is not 0.
        """
        done = self.run("-m", "sampan", *arguments)
        if done.returncode:
            raise CheckFailed(
                f"sampan {' '.join(arguments)[:100]}: status {done.returncode}: {done.stderr.strip()[-800:]}"
            )
        return done.stdout

    def program(self, code: str) -> None:
        """Run a program.

        Raises:
            CheckFailed: Its status is not 0.
        """
        done = self.run("-c", code)
        if done.returncode:
            raise CheckFailed(f"{code.strip().splitlines()[0]} …: {done.stderr.strip()[-800:]}")

    def refuses(self, *arguments: str, hint: str) -> str:
        """Run a verb that lacks something, and return its hint.

        Raises:
            CheckFailed: It is not refused with 1 and a hint that has these words in it, or with a traceback.
        """
        done = self.run("-m", "sampan", *arguments)
        said = done.stderr.rpartition("hint: ")[2]
        if done.returncode != 1 or "Traceback" in done.stderr or hint not in said:
            shown = f"status {done.returncode}: {done.stderr.strip()[-800:]}"
            raise CheckFailed(f"sampan {' '.join(arguments)[:100]} should be refused with {hint!r}: {shown}")
        return said.strip()

    def pip(self, *requirements: str) -> None:
        """Install something more.

        Raises:
            CheckFailed: pip could not.
        """
        done = self.run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        if done.returncode:
            raise CheckFailed(f"pip install {' '.join(requirements)}: {done.stderr.strip()[-800:]}")

    def job(self, *changes: str) -> list[str]:
        """Return a job file and what to put over it, for the tiny model."""
        if not (self.work / "signs").is_dir():
            self.does("data", "signs", "signs", "--count", "8")
        self.does("init", "job.toml", "--force")
        return ["job.toml", *(word for change in (*TINY, *changes) for word in ("--set", change))]

    def versions(self) -> dict[str, str]:
        """Return the versions of what the extras are about."""
        code = f"""
import importlib.metadata as m, json
found = {{}}
for name in {PACKAGES!r}:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))"""
        return json.loads(self.run("-c", code).stdout)

    def report(self) -> dict[str, Any]:
        """Return the doctor's report."""
        return json.loads(self.does("doctor", "--json"))


def expect(what: str, found: Any, right: Any) -> None:
    """Compare.

    Raises:
        CheckFailed: They differ.
    """
    if found != right:
        raise CheckFailed(f"{what} is {found!r}, and should be {right!r}")


# ---------------------------------------------------------------------------------------------------------------- checks


def core(tried: Installed) -> None:
    """help, a job file, a plan, a screening, signs and a look at the packed model"""
    for words in ((), ("train",), ("generate",), ("data",)):
        tried.does(*words, "--help")
    tried.does("init", "plan.toml")
    tried.does("plan", "plan.toml")
    question = {"date": "2026-11-01", "relation": "rent", "chip": "h100_sxm", "site": "US", "actor-hq": "SG"}
    tried.does("screen", *(word for key, value in question.items() for word in (f"--{key}", value)))
    tried.does("data", "signs", "some", "--count", "2")
    tried.does("checkpoint", "inspect", "nano")


def doctor(tried: Installed) -> None:
    """what is installed is said to work, everything else to be missing, and a new job names the framework that is here"""
    report = tried.report()
    for name in ("torch", "mindspore", "tensorflow"):
        facts = report["frameworks"][name]
        expect(f"the doctor's answer for {name}", facts["problem"] is None, tried.has(name))
        if not tried.has(name):
            expect("its first words", facts["problem"].partition(" (")[0], "not installed")
    for name, facts in report["extras"].items():
        expect(f"the doctor's answer for {name}", facts["problem"] is None, name in tried.extras)
        if name not in tried.extras:
            known = f"pip install 'sampan[{name}]'"
            expect("the command that it names", known in facts["problem"] or facts["problem"], True)
    tried.does("init", "first.toml")
    text = (tried.work / "first.toml").read_text(encoding="utf-8")
    expect("the framework of a new job", f'\nframework = "{tried.framework or "torch"}"' in text, True)


def missing(tried: Installed) -> None:
    """a verb that lacks an extra names it, without a traceback"""
    if tried.framework is None:
        both = "sampan[torch]' or pip install 'sampan[mindspore]'"
        tried.refuses("generate", "a bird", hint=both)
        if "mindspore" in tried.extras:
            tried.refuses(
                "generate", "a bird", "--framework", "mindspore", hint="on Python 3.12: there is no build for"
            )
    for name in TRAINS:
        if not tried.has(name) and tried.framework:
            way = f"sampan[{name}]' or --framework {tried.framework}, which is here"
            tried.refuses("generate", "a bird", "--framework", name, hint=way)
            way = f"sampan[{name}]' or --set place.framework={tried.framework}, which is here"
            tried.refuses("data", "prepare", *tried.job(f"place.framework={name}"), hint=way)
    if not tried.has("tensorflow"):
        tried.refuses("bench", "--frameworks", "tensorflow", hint="sampan[tensorflow]")
    if not tried.has("data"):
        tried.refuses("data", "emoji", "none", hint="sampan[data]")
        tried.refuses("data", "pairs", "none", "--count", "2", hint="sampan[data]")
    if not tried.has("serve"):
        tried.refuses("serve", hint="sampan[serve]")
    if tried.framework is None:
        return
    if not tried.has("hub"):
        (tried.work / "empty.parquet").touch()
        for reader, path in (("parquet", "empty.parquet"), ("hub", ".")):
            job = tried.job(f"data.reader={reader}", f"data.path={path}")
            tried.refuses("data", "prepare", *job, hint="sampan[hub]")
    if not tried.has("logs"):
        tried.refuses("train", *tried.job("train.tensorboard=true"), hint="sampan[logs]")
    if not tried.has("wandb"):
        tried.refuses("train", *tried.job("train.wandb=boats"), hint="sampan[wandb]")


def paints(tried: Installed) -> None:
    """on each framework, the packed model paints, every stage of a tiny one is trained, and that one paints too"""
    for name in filter(tried.has, TRAINS):
        tried.does("generate", "a red sign", "--steps", "2", "--seed", "1", "--framework", name, "--out", f"{name}.png")
        out = f"runs/{name}"
        tried.does("train", *tried.job(f"out={out}"), "--framework", name)
        tried.does("generate", "a sign", "--model", out, "--steps", "1", "--framework", name, "--out", f"{name}-2.png")
        tried.does("checkpoint", "export", out, f"models/{name}", "--dtype", "bf16")


def compares(tried: Installed) -> None:
    """`sampan bench` times a step of the decoder on every framework"""
    names = ",".join(name for name in (*TRAINS, "tensorflow") if tried.has(name))
    words = ("--frameworks", names, "--modes", "eager", "--parts", "decoder", "--rounds", "1", "--device", "cpu")
    tried.does("bench", *tried.job()[:1], *tried.job()[1:], *words, "--dtype", "fp32")


def emoji(tried: Installed) -> None:
    """`sampan data emoji` and `sampan data pairs` write pictures"""
    tried.does("data", "emoji", "emoji", "--count", "4", "--size", "64", "--edits", "1")
    tried.does("data", "pairs", "pairs", "--count", "3")


def tables(tried: Installed) -> None:
    """a parquet file is read, alone and as a set in a Hub layout, and prepared where there is a framework"""
    tried.program(PARQUET)
    tried.program(READ)
    if tried.framework:
        for reader, path in (("parquet", "birds/train-00000-of-00001.parquet"), ("hub", "birds")):
            changes = (f"data.reader={reader}", f"data.path={path}", f"out=runs/{reader}")
            tried.does("data", "prepare", *tried.job(*changes))


def logs(tried: Installed) -> None:
    """a loss curve is drawn, and a training writes event files for TensorBoard"""
    tried.program(DRAW)
    if tried.framework:
        tried.does("train", *tried.job("train.tensorboard=true", 'train.stages=["vae"]', "out=runs/logs"))
        run = tried.work / "runs" / "logs"
        expect("what is drawn", (run / "loss.png").is_file(), True)
        expect("what is written for TensorBoard", list((run / "tensorboard").rglob("events*")) != [], True)


def wandb(tried: Installed) -> None:
    """a training writes a run of Weights & Biases, to be sent later"""
    if tried.framework:
        tried.does("train", *tried.job("train.wandb=boats", 'train.stages=["vae"]', "out=runs/wandb"))
        expect("what is written", list((tried.work / "runs" / "wandb" / "wandb").rglob("*.wandb")) != [], True)


def serves(tried: Installed) -> None:
    """the server starts, says that it is well, and stops when it is told to"""
    if tried.framework is None:
        tried.refuses("serve", hint="sampan[torch]' or pip install 'sampan[mindspore]'")
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tried.work / "serve.log"
    with open(log, "w", encoding="utf-8") as file:
        server = subprocess.Popen(
            [tried.python, "-m", "sampan", "serve", "--port", str(port)],
            cwd=tried.work, env=environment(tried.python.parents[1]), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        status = _health(server, port)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=90)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    said = log.read_text(encoding="utf-8")[-800:]
    expect(f"the server's answer ({said})", status, 200)
    expect(f"its status at the end ({said})", server.returncode in (0, 130, -signal.SIGINT), True)


def _health(server: subprocess.Popen[bytes], port: int) -> int | None:
    ends_s = time.monotonic() + 300
    while time.monotonic() < ends_s and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
                return answer.status
        except OSError:
            time.sleep(0.5)
    return None


def mended(tried: Installed) -> None:
    """NumPy 2 beside MindSpore, and pyarrow 26 beside NumPy 1, are told by the doctor and by the verb, whose hint mends it"""
    breaks = [("mindspore", "numpy==2.2.6", ["generate", "a bird", "--steps", "1", "--framework", "mindspore"])]
    if tried.has("hub"):
        changes = ("data.reader=parquet", "data.path=birds", "out=runs/mended", "place.framework=mindspore")
        breaks.append(("hub", "pyarrow==26.0.1", ["data", "prepare", *tried.job(*changes)]))
    for name, requirement, verb in breaks:
        tried.pip(requirement)
        report = tried.report()
        facts = {**report["frameworks"], **report["extras"]}[name]
        expect(f"whether the doctor is content with {requirement}", facts["problem"] is None, False)
        hint = tried.refuses(*verb, hint="brings versions that go together")
        command = hint.partition("'")[2].partition("'")[0]
        tried.pip(command)
        tried.does(*verb)


Check = Callable[[Installed], None]
_MENDED = (("mindspore",), ("mindspore", "hub"))
_WHERE: Mapping[Check, Callable[[Sequence[str], str], bool]] = {
    core: lambda extras, version: not extras,
    doctor: lambda extras, version: True,
    missing: lambda extras, version: len(extras) < 3,
    paints: lambda extras, version: (
        (len(extras) != 2 and bool({*TRAINS} & {*extras})) or extras == ("torch", "mindspore")
    ),
    compares: lambda extras, version: "tensorflow" in extras,
    emoji: lambda extras, version: "data" in extras,
    tables: lambda extras, version: "hub" in extras,
    logs: lambda extras, version: "logs" in extras,
    wandb: lambda extras, version: "wandb" in extras,
    serves: lambda extras, version: "serve" in extras,
    mended: lambda extras, version: extras in _MENDED and not version.startswith("3.13"),
}


def checks(extras: Sequence[str], version: str) -> dict[str, Check]:
    """Return the checks of a row by name, in their order.

    Args:
        version: Of Python.
    """
    return {check.__name__: check for check, is_meant in _WHERE.items() if is_meant(tuple(extras), version)}


def meanings() -> dict[str, str]:
    """Return what each check is about."""
    return {f"`{check.__name__}`": check.__doc__ or "" for check in _WHERE}

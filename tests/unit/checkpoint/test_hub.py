"""Models by their names on the Hub: found in a cache of the documented layout, never asked for over a network here."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sampan.checkpoint import hub
from sampan.checkpoint.folder import open_folder, open_with_lora
from sampan.checkpoint.inspect import inspect
from sampan.cli import main
from sampan.errors import CheckpointError

COMMIT, OLDER = "a" * 40, "0123456789" * 4
NAME = Path("zai-org/GLM-Image")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a current directory with nothing in it."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "hf" / "hub"


def put(cache: Path, model: Path, commit: str = COMMIT, reference: str | None = "main") -> Path:
    """Copy a model folder into a cache as the Hub's libraries do, files as links to blobs, and return the snapshot."""
    repository = cache / "models--zai-org--GLM-Image"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(sorted(path for path in model.rglob("*") if path.is_file())):
        blob = repository / "blobs" / f"{commit[:6]}{number:034x}"
        shutil.copyfile(file, blob)
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    if reference:
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / reference).write_text(commit, encoding="utf-8")
    return snapshot


def console(text: io.StringIO | None = None, *, terminal: bool = False) -> Console:
    return Console(file=text or io.StringIO(), force_terminal=terminal, width=400, no_color=True, highlight=False)


# ------------------------------------------------------------------------------------------------------------- the cache


def test_a_model_in_the_cache_is_opened_by_its_name(cache: Path, tiny_folder: Path):
    snapshot = put(cache, tiny_folder)
    opened = open_folder(NAME)
    opened.check()
    assert (opened.path, opened.name) == (snapshot, "zai-org/GLM-Image")
    assert opened.hash == open_folder(tiny_folder).hash
    assert inspect(NAME)["complete"]


def test_the_library_of_the_hub_finds_the_same_folder(cache: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    library = pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    snapshot = put(cache, tiny_folder)
    found = library.snapshot_download(str(NAME), cache_dir=cache, local_files_only=True)
    assert Path(found) == snapshot == hub.find(NAME)


@pytest.mark.parametrize(
    "text",
    [
        "zai-org/GLM-Image@main",
        "zai-org/GLM-Image@v1",
        f"zai-org/GLM-Image@{OLDER}",
        f"zai-org/GLM-Image@{OLDER[:8]}",
    ],
)
def test_a_revision_is_a_branch_a_tag_or_a_commit(cache: Path, tiny_folder: Path, text: str):
    snapshots = {"main": put(cache, tiny_folder), "older": put(cache, tiny_folder, OLDER, "v1")}
    assert hub.find(Path(text)) == snapshots["main" if text.endswith("main") else "older"]


def test_the_cache_is_where_the_libraries_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert hub.cache_folder() == tmp_path / "hf" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    assert hub.cache_folder() == tmp_path / "other"
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert hub.cache_folder() == tmp_path / "xdg" / "huggingface" / "hub"


def test_a_folder_here_counts_before_the_hub(cache: Path, tiny_folder: Path):
    put(cache, tiny_folder)
    shutil.copytree(tiny_folder, NAME)
    assert open_folder(NAME).path == NAME


@pytest.mark.parametrize("text", ["nano", "a/b/c", "../b", "./b/c", "/a/b", "a/..", "a/b@../../x", "s3://a/b", "a b/c"])
def test_other_words_are_no_names(text: str):
    assert hub.parse(text) is None


def test_below_a_folder_that_is_here_a_word_is_a_path(tmp_path: Path):
    assert hub.parse("runs/jbo") is not None
    Path("runs").mkdir()
    assert hub.parse("runs/jbo") is None
    with pytest.raises(CheckpointError, match="there is no model folder `runs/jbo`"):
        open_folder(Path("runs/jbo"))


def test_a_reference_that_leads_elsewhere_is_not_followed(cache: Path, tiny_folder: Path):
    put(cache, tiny_folder)
    (cache / "models--zai-org--GLM-Image" / "refs" / "main").write_text("../../..", encoding="utf-8")
    assert hub.find(NAME) == NAME


def test_what_an_interrupted_download_left_out_is_fetched_by_the_command(cache: Path, tiny_folder: Path):
    snapshot = put(cache, tiny_folder)
    (snapshot / "vae" / "config.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        open_folder(NAME)
    assert "`vae/config.json` is missing" in caught.value.render()
    assert "hint: `hf download zai-org/GLM-Image` fetches the rest" in caught.value.render()
    assert hub.is_whole(snapshot)  # of weights
    next((snapshot / "vae").glob("*.safetensors")).unlink()
    assert not hub.is_whole(snapshot)


def test_the_folder_of_the_cache_itself_names_the_model(cache: Path, tiny_folder: Path):
    put(cache, tiny_folder)
    with pytest.raises(CheckpointError) as caught:
        open_folder(cache / "models--zai-org--GLM-Image")
    assert caught.value.hint == "pass `zai-org/GLM-Image`"


def test_a_lora_finds_the_model_it_adapts_by_name(cache: Path, tiny_folder: Path, tmp_path: Path):
    run = tmp_path / "run"
    (run / "lora").mkdir(parents=True)
    start = f"{NAME.as_posix()}@{COMMIT}"
    (run / "run.json").write_text(json.dumps({"model": {"start": start}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=f"the model `{start}` is not on this machine"):
        open_with_lora(run)
    snapshot = put(cache, tiny_folder)
    assert open_with_lora(run)[0].path == snapshot
    assert hub.pinned(NAME) == start  # what a run records, so that it stays the same model


# ----------------------------------------------------------------------------------------------- every place that takes one

NOT_HERE = (
    "error: the model `zai-org/GLM-Image` is not on this machine\n"
    "  because there is no such folder, and no such model in the Hub's cache `{cache}`\n\n"
    "hint: `hf download zai-org/GLM-Image` fetches it{more}\n"
)
SERVE = "serve --model zai-org/GLM-Image --port 0"
TAKES_ONE = [
    "generate red --model zai-org/GLM-Image",
    "generate --examples --model zai-org/GLM-Image",
    "checkpoint inspect zai-org/GLM-Image",
    "checkpoint merge zai-org/GLM-Image there --lora x",
    "doctor --model zai-org/GLM-Image",
    "eval --suite signs --model zai-org/GLM-Image",
    SERVE,
]


@pytest.mark.parametrize("line", TAKES_ONE)
def test_every_verb_says_how_to_fetch_it(line: str, cache: Path, capsys: pytest.CaptureFixture[str]):
    if line == SERVE:
        pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    assert main(line.split()) == 1
    said = capsys.readouterr()
    assert said.err == NOT_HERE.format(cache=cache, more="; or pass --download")
    assert said.out == ""


def test_a_job_says_how_and_never_downloads(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "download", lambda *args, **more: pytest.fail("a job downloads"))
    Path("job.toml").write_text(
        'out = "run"\ndata.path = "pictures"\nmodel.start = "zai-org/GLM-Image"\nplace.device = "cpu"\n',
        encoding="utf-8",
    )
    assert main(["train", "job.toml"]) == 1
    assert NOT_HERE.format(cache=cache, more="") in capsys.readouterr().err
    assert not Path("run").exists()


# ------------------------------------------------------------------------------------------------------------- downloading


class FakeHub(ModuleType):
    """Stands for the library: knows one model, and copies it into the cache when it is downloaded."""

    def __init__(self, cache: Path, model: Path, files: dict[str, int], error: Exception | None = None):
        super().__init__("huggingface_hub")
        self.cache, self.model, self.files, self.error = cache, model, files, error
        self.utils = SimpleNamespace(
            are_progress_bars_disabled=lambda: False,
            disable_progress_bars=lambda: None,
            enable_progress_bars=lambda: None,
        )
        self.asked: list[dict[str, Any]] = []

    def HfApi(self) -> Any:  # the library's name
        def model_info(name: str, **more: Any) -> Any:
            if self.error:
                raise self.error
            siblings = [SimpleNamespace(rfilename=file, size=size) for file, size in self.files.items()]
            return SimpleNamespace(siblings=siblings, card_data=SimpleNamespace(license="mit"), tags=[])

        return SimpleNamespace(model_info=model_info)

    def snapshot_download(self, name: str, **more: Any) -> str:
        self.asked.append({"name": name, **more})
        return str(put(self.cache, self.model))


FILES = {"model_index.json": 1000, "transformer/a.safetensors": 3 * 2**20, "vae/b.bin": 2**40, "demo.mp4": 2**40}


@pytest.fixture
def library(cache: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeHub]:
    """Put a fake library in the place of huggingface_hub."""

    def put_in_place(**more: Any) -> FakeHub:
        fake = FakeHub(cache, tiny_folder, **{"files": FILES, **more})
        monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
        return fake

    return put_in_place


def test_size_and_licence_are_said_before_a_download(cache: Path, library: Callable[..., FakeHub]):
    fake, said = library(), io.StringIO()
    hub.fetch(NAME, allowed=True, console=console(said))
    assert said.getvalue() == f"zai-org/GLM-Image: 2 files, 3.0 MiB, licence mit; they go to {cache}\n"
    assert open_folder(NAME).name == "zai-org/GLM-Image"
    assert fake.asked[0]["name"] == "zai-org/GLM-Image" and "*.bin" in fake.asked[0]["ignore_patterns"]
    hub.fetch(NAME, allowed=True, console=console())
    assert len(fake.asked) == 1  # what is here is not asked for again


@pytest.mark.parametrize(
    ("answer", "is_there"), [("y\n", True), ("yes\n", True), ("\n", False), ("n\n", False), ("", False)]
)
def test_on_a_terminal_one_is_asked(
    answer: str, is_there: bool, library: Callable[..., FakeHub], monkeypatch: pytest.MonkeyPatch
):
    library()
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    said = io.StringIO()
    if is_there:
        hub.fetch(NAME, allowed=False, console=console(said, terminal=True))
    else:
        with pytest.raises(CheckpointError, match="is not on this machine"):
            hub.fetch(NAME, allowed=False, console=console(said, terminal=True))
    assert "Download 3.0 MiB? [y/N]" in said.getvalue()
    assert hub.find(NAME).is_dir() == is_there


def test_nothing_is_downloaded_in_a_pipe_without_leave(library: Callable[..., FakeHub]):
    fake = library()
    with pytest.raises(CheckpointError, match="is not on this machine"):
        hub.fetch(NAME, allowed=False, console=console())
    assert fake.asked == []


def test_without_a_connection_it_says_how(library: Callable[..., FakeHub]):
    library(error=ConnectionError("no route to host\nmore"))
    with pytest.raises(CheckpointError) as caught:
        hub.fetch(NAME, allowed=True, console=console())
    assert caught.value.because[1] == "the Hub was asked: no route to host"
    assert caught.value.hint == (
        "`hf download zai-org/GLM-Image` fetches it; do that on a machine that has a connection, and copy its cache here"
    )


def test_another_kind_of_model_is_refused_before_a_byte_is_fetched(library: Callable[..., FakeHub]):
    fake = library(files={"config.json": 10, "model.safetensors": 10})
    with pytest.raises(CheckpointError, match="is not a model that sampan runs"):
        hub.fetch(NAME, allowed=True, console=console())
    assert fake.asked == []


def test_a_disk_that_is_too_small_is_said_before(library: Callable[..., FakeHub]):
    fake = library(files={**FILES, "transformer/a.safetensors": 2**60})
    with pytest.raises(CheckpointError) as caught:
        hub.fetch(NAME, allowed=True, console=console())
    assert "it takes 1024.0 PiB" in caught.value.because[0] or "are free at" in caught.value.because[0]
    assert fake.asked == []


def test_without_the_library_the_extra_is_named_and_the_cache_is_read(
    cache: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError) as caught:
        hub.fetch(NAME, allowed=True, console=console())
    assert "pip install 'sampan[hub]'" in (caught.value.hint or "")
    put(cache, tiny_folder)
    hub.fetch(NAME, allowed=True, console=console())
    open_folder(NAME).check()

"""Model folders whose JSON files have something wrong in them: each is opened, or refused in words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sampan
from mutants import json_mutants, survives
from sampan.checkpoint import run
from sampan.checkpoint.export import read_config, write_config
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.run_metadata import read_log, read_record
from sampan.models import presets

NANO = Path(sampan.__file__).parent / "weights/nano"
FILES = sorted(path.relative_to(NANO).as_posix() for path in NANO.rglob("*.json"))
SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that comes with sampan, its weights linked where the system can."""

    def link(source: str, target: str) -> str:
        if not source.endswith(".safetensors"):
            return shutil.copy2(source, target)
        try:
            Path(target).symlink_to(source)
        except OSError:
            shutil.copy2(source, target)
        return target

    return Path(shutil.copytree(NANO, tmp_path_factory.mktemp("mutants") / "nano", copy_function=link))


def use(folder: Path) -> None:
    opened = open_folder(folder)
    opened.check(("ar",))
    opened.prompt_tokenizer().encode('a sign "B"', (4, 4), (2, 2))


def test_every_config_file_is_tried():
    assert len(FILES) == 12 and "processor/tokenizer_config.json" in FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("seed", "count"), [(1, 60), pytest.param(2, 1000, marks=SLOW)])
def test_no_mutant_of_a_model_ends_in_a_traceback(seed: int, count: int, name: str, folder: Path):
    path = folder / name
    before = path.read_text(encoding="utf-8")
    if name == "processor/tokenizer.json":
        count //= 3  # it is large
    try:
        for content in json_mutants(seed, count, before):
            path.write_bytes(content)
            survives(lambda: use(folder), content)
    finally:
        path.write_text(before, encoding="utf-8")
    assert survives(lambda: use(folder), "what it was")


@pytest.mark.parametrize(("seed", "count"), [(1, 100), pytest.param(2, 2000, marks=SLOW)])
def test_no_mutant_of_a_run_ends_in_a_traceback(seed: int, count: int, tmp_path: Path):
    write_config(tmp_path, presets.get("nano"))
    (tmp_path / "run.json").write_text('{"seed": 0, "model": {"start": null}, "framework": "torch"}', encoding="utf-8")
    (tmp_path / "log.jsonl").write_text('{"stage": "vae", "step": 1, "loss": 0.5}\n', encoding="utf-8")
    folder = tmp_path / "stages/vae/step-00000003"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(
        '{"format": 2, "stage": "vae", "step": 3, "done": true, "files": {}, "bytes": {}, "skipped_in_a_row": 0, '
        '"history": [{"from_step": 0, "to_step": 3, "framework": "torch"}]}', encoding="utf-8"
    )  # fmt: skip

    def used() -> None:
        read_config(tmp_path)
        read_record(tmp_path)
        read_log(tmp_path / "log.jsonl")
        found, _ = run.newest(tmp_path, "vae")
        assert found is None or run.read_state(found)
        run.final(tmp_path, "vae")
        run.keep_last(tmp_path, "vae", 1)

    assert survives(used, "what it was")
    for name in ("config.json", "run.json", "log.jsonl", "stages/vae/step-00000003/state.json"):
        path = tmp_path / name
        before = path.read_text(encoding="utf-8")
        for content in json_mutants(seed, count, before):
            path.write_bytes(content)
            survives(used, content)
        path.write_text(before, encoding="utf-8")

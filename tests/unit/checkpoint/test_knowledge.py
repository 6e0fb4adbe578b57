"""What a model says it knows: read, checked, kept where it stays true, and held against prompts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sampan.checkpoint import builtin, sealed
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.inspect import inspect
from sampan.checkpoint.knowledge import ModelKnowledge, read_knowledge, state_knowledge
from sampan.errors import CheckpointError

KNOWN = ModelKnowledge(("red apple", "sun", "maçã vermelha", "红苹果"), ("en", "pt", "zh"), ("a nice day",))


def nano() -> Path:
    if "nano" not in builtin.builtin_models():
        pytest.skip("this installation has no weights of nano")
    return builtin.builtin_models()["nano"]


@pytest.mark.parametrize(
    "prompt",
    [
        "red apple",
        "a Red Apple on a table",
        "mac\u0327a\u0303 vermelha sobre um fundo azul",  # composed the other way
        "桌上的红苹果。",
        'a boat called "AHOY"',
        "the sun, high above",
        "a nice day",
    ],
)
def test_prompts_that_are_known(prompt: str):
    assert KNOWN.covers(prompt)
    assert KNOWN.hint(prompt, "nano") is None


@pytest.mark.parametrize("prompt", ["a boat", "sunday", "a red car", "apples", ""])
def test_prompts_that_are_not(prompt: str):
    assert not KNOWN.covers(prompt)


def test_the_hint_names_what_is_near_and_where_to_look():
    assert KNOWN.hint("an apple", "nano") == (
        "hint: the prompt names none of the 4 subjects that `nano` knows, and has no words in quotes to draw; near to it are "
        "`red apple`; `sampan generate --examples --model nano` lists prompts that work"
    )


def test_a_model_that_says_nothing_is_asked_anything(tiny_folder: Path):
    knows = open_folder(tiny_folder).knows
    assert not knows
    assert knows.hint("a boat", "tiny") is None


def test_what_is_stated_is_read_and_changes_no_hash(folder: Path):
    (folder / "sampan.json").write_text('{"painting": {"guidance_scale": 2}, "sha256": {}}', "utf-8")
    before = open_folder(folder).hash
    state_knowledge(folder, KNOWN)
    assert list(json.loads((folder / "sampan.json").read_text("utf-8"))) == ["painting", "knows", "sha256"]
    opened = open_folder(folder)
    assert (opened.knows, opened.hash) == (KNOWN, before)
    assert inspect(folder)["knows"] == KNOWN.to_json()


def test_a_file_with_a_checksum_keeps_one_and_is_refused_where_it_is_wrong(folder: Path):
    sealed.write(folder / "sampan.json", {"format": 2, "sha256": {}, "documents": {}})
    state_knowledge(folder, KNOWN)
    own = json.loads((folder / "sampan.json").read_text("utf-8"))
    assert list(own) == ["format", "knows", "sha256", "documents", "checksum"]
    assert sealed.defect(own, required=True) is None
    (folder / "sampan.json").write_text(json.dumps({**own, "format": 3}), "utf-8")
    with pytest.raises(CheckpointError, match="cannot be added to"):
        state_knowledge(folder, KNOWN)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ([], "it is a list"),
        ({"subject": ["x"]}, "it has no key `subject`"),
        ({"subjects": "red apple"}, "its `subjects` is not a list of texts"),
        ({"examples": ["a", 3]}, "its `examples` is not a list of texts"),
        ({"languages": [" "]}, "its `languages` is not a list of texts"),
        ({"examples": ["a" * 3000]}, "its `examples` is not a list of texts"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_file_named(folder: Path, stated: Any, said: str):
    (folder / "sampan.json").write_text(json.dumps({"knows": stated}), "utf-8")
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder)
    assert said in caught.value.because[0]
    assert caught.value.because[1] == f"the file is `{folder / 'sampan.json'}`"
    report = inspect(folder)
    assert not report["complete"] and len(report["problems"]) == 1 and said in report["problems"][0]


def test_the_packed_model_knows_what_its_recipe_trained():
    import importlib.util

    script = Path(__file__).resolve().parents[3] / "scripts" / "nano.py"
    spec = importlib.util.spec_from_file_location("nano_recipe", script)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    knows = read_knowledge(nano())
    assert knows == recipe.knowledge()
    assert len(knows.subjects) == 189  # 96 emoji in two languages; pizza, banana and jeans are called the same in both
    assert all(knows.covers(prompt) for prompt in knows.examples)
    assert open_folder(nano()).config.painting.num_inference_steps == 20
    assert open_folder(nano()).hash == "2dd02b5c1eeedf7f"  # as results/ have it


def test_a_merged_model_knows_what_its_base_knew(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from sampan.checkpoint import lora, merge

    (folder / "sampan.json").write_text("{}", "utf-8")
    state_knowledge(folder, KNOWN)
    adapter = lora.LoraAdapter("decoder", {}, tmp_path / "x.safetensors", "00")
    monkeypatch.setattr(lora, "read", lambda *args: [adapter])
    merged = merge.merge(folder, tmp_path / "merged", [(tmp_path / "x.safetensors", 1.0)])
    assert open_folder(merged).knows == KNOWN
    shutil.rmtree(merged)

"""Published models: every file says what it must, names find them, and their shapes have the published counts."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from sampan.catalog.models import DEFAULTS, FOLDER, find, models, read
from sampan.errors import CatalogError
from sampan.plan.workloads.named import workload_of

GOOD = """
name = "Example-7B"
series = "example"
kind = "llm-dense"
params = 7e9
confidence = "read"
[source]
title = "A page"
url = "https://example.org"
as_of = 2024-01-01
[language]
layers = 2
"""


@pytest.mark.parametrize("name", sorted(models()))
def test_the_shape_has_the_published_number_of_parameters(name: str) -> None:
    # the counts of diffusion models are those of what is trained
    counted = workload_of(name, with_encoders=False).params
    assert counted == pytest.approx(models()[name].params, rel=0.03)


@pytest.mark.parametrize("name", sorted(models()))
def test_a_model_has_a_dated_source_and_is_found_by_its_names(name: str) -> None:
    model = models()[name]
    assert model.source.url.startswith("https://")
    assert datetime.date(2017, 1, 1) < model.source.as_of < datetime.date(2027, 1, 1)
    assert set(model.defaults) <= set(DEFAULTS)
    for one in (name, *model.aliases):
        assert find(one, model.params) == model


def test_no_two_files_have_one_name() -> None:
    assert len(models()) == len(list(FOLDER.glob("*.toml")))


@pytest.mark.parametrize(
    ("name", "params", "found"),
    [
        ("LLAMA3_70B", 70e9, "Llama-3-70B"),
        ("llama3_1_70b", None, "Llama-3.1-70B"),
        ("meta-llama/Llama-3.1-8B-Instruct", None, "Llama-3.1-8B"),
        ("sft_Qwen2-7B_multi_card", 7e9, "Qwen2-7B"),
        ("sft_Mixtral-8x7B-Instruct-v0.1_deepspeed", None, "Mixtral-8x7B"),
        ("Qwen2.5-VL", 7e9, "Qwen2.5-VL-7B"),
        ("Qwen2.5-VL", 3e9, "Qwen2.5-VL-3B"),
        ("Wan2.1-T2V", 1.3e9, "Wan2.1-T2V-1.3B"),
        ("Wan-2.1-14B", 14e9, "Wan2.1-T2V-14B"),
        ("DeepSeekV3 (w/o MTP)", 671e9, "DeepSeek-V3"),
        ("GPT3-1.3B", None, "GPT-3-1.3B"),
        ("GPT3-13B", None, "GPT-3-13B"),
        ("bloom_7.1b", 7.1e9, "Bloom-7B1"),
        ("GLM-4-9B", None, "GLM-4-9B"),
    ],
)
def test_names_as_people_write_them(name: str, params: float | None, found: str) -> None:
    assert find(name, params).name == found


def test_an_unknown_name_names_its_neighbours() -> None:
    with pytest.raises(CatalogError) as caught:
        find("Lama-3.1-8B")
    assert str(caught.value) == (
        "error: there is no model `Lama-3.1-8B` in the catalogue\n"
        "  because neither its name nor the name of its series is known\n\n"
        "hint: did you mean `Llama-3.1-8B` or `Llama-3-8B`?"
    )


def test_a_size_that_a_series_lacks_is_not_guessed() -> None:
    with pytest.raises(CatalogError) as caught:
        find("Mixtral", 7e10)
    assert caught.value.because == ("its series has Mixtral-8x22B, Mixtral-8x7B, none within a quarter of 70 billion",)
    with pytest.raises(CatalogError) as caught:
        find("Mixtral")
    assert caught.value.because == ("its series has Mixtral-8x22B, Mixtral-8x7B, and no size is given",)


@pytest.mark.parametrize(
    ("old", "new", "fact", "hint"),
    [
        ("series =", "serie =", "it has `serie`, which is not a field", "did you mean `series`?"),
        ('series = "example"\n', "", "it has no `series`", None),
        ("params = 7e9", "params = 0", "its `params` is 0, and is to be above 0", None),
        (
            '"llm-dense"',
            '"llm"',
            "its `kind` is 'llm'",
            "did you mean `vlm` or `llm-moe`?",
        ),
        (
            "[language]\nlayers = 2",
            "",
            "it has no shape: none of language, diffusion, unet, tower, hybrid",
            None,
        ),
        ("layers = 2", "layers = 2\n[defaults]\nlength = 3", "its defaults have `length`, which is not one", None),
    ],
)
def test_a_bad_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, fact: str, hint: str | None) -> None:
    path = tmp_path / "example.toml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        read(path)
    assert caught.value.what == "the model file `example.toml` cannot be used"
    assert caught.value.because == (fact,)
    if hint is not None:
        assert caught.value.hint == hint


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text("name = ", encoding="utf-8")
    with pytest.raises(CatalogError, match=r"the model file `example\.toml` cannot be read"):
        read(path)

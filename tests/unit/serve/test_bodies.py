"""Bodies as clients and gateways send them: forms and JSON, names of fields, what is answered, left aside and refused."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sampan.models.config import PromptConfig
from sampan.serve.schemas import LEFT_ASIDE, NUMBERS, EditFields
from uploaded import png

EDITS = "/v1/images/edits"
FAST = {"prompt": "make it blue", "num_inference_steps": 1, "size": "64x64", "seed": 3}


def address(seed: int = 0, side: int = 64) -> str:
    return "data:image/png;base64," + base64.b64encode(png(side, side, seed)).decode()


def painted(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["b64_json"]


def refused(answer: httpx.Response, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"], answer.json()["error"]["param"]


@pytest.fixture(scope="module")
def form() -> dict[str, str]:
    return {key: str(value) for key, value in FAST.items()}


def test_an_edit_is_the_same_whatever_its_pictures_are_called(running: Any, form: dict[str, str]):
    first, second = png(64, 64, 1), png(64, 64, 2)
    post = running.client.post

    def by_form(*names: str) -> str:
        files = [(name, ("a.png", data)) for name, data in zip(names, (first, second), strict=True)]
        return painted(post(EDITS, data=form, files=files))

    wanted = by_form("image", "image")
    assert by_form("image[]", "image[]") == by_form("images", "images") == by_form("images[]", "images[]") == wanted
    assert by_form("image[0]", "image[1]") == wanted != by_form("image[1]", "image[0]")
    both = [{"image_url": address(1)}, {"image_url": {"url": address(2)}}]
    assert painted(post(EDITS, json={**FAST, "images": both})) == wanted
    assert painted(post(EDITS, json={**FAST, "image": [address(1), address(2)]})) == wanted
    assert painted(post(EDITS, data={**form, "images[]": [address(1), address(2)]})) == wanted


def test_a_json_edit_may_be_as_large_as_a_form_and_has_a_mask(running: Any):
    large = address(1, 512)
    assert len(large) > 2 * running.server.settings.max_json_bytes
    painted(running.client.post(EDITS, json={**FAST, "images": [{"image_url": large}]}))
    mask = "data:image/png;base64," + base64.b64encode(png(64, 64, mode="RGBA")).decode()
    painted(running.client.post(EDITS, json={**FAST, "images": [address(1)], "mask": {"image_url": mask}}))


def test_addresses_in_json_are_fetched_where_that_is_allowed(start: Callable[..., Any], running: Any):
    asked: list[str] = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return png(64, 64)

    body = {**FAST, "images": [{"image_url": "https://pictures.example/a.png"}]}
    assert refused(running.client.post(EDITS, json=body)) == ("urls_not_allowed", "image")
    painted(start(fetch=fetch).client.post(EDITS, json=body))
    assert asked == ["https://pictures.example/a.png"]


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"images": [{"file_id": "file-1"}]}, "unsupported_parameter", "images"),
        ({"images": [{"image_url": 7}]}, "invalid_value", "images"),
        ({"images": [{"image_url": "ftp://a"}]}, "invalid_image", "image"),
        ({"images": [{"picture": "x"}]}, "unknown_parameter", "images"),
        ({"images": "data:image/png;base64,%%"}, "invalid_image", "image"),
        ({"images": "data:image/png,abc"}, "invalid_image", "image"),
        ({"images": ["data:image/png;base64,AAAA"]}, "unsupported_image_type", "image"),
        ({"images": []}, "missing_image", "image"),
        ({"images": ["data:,"] * 5}, "too_many_references", "image"),
        ({"mask": 3}, "invalid_value", "mask"),
        ({"reference_ids": "x"}, "invalid_value", "reference_ids"),
    ],
)
def test_a_json_edit_that_is_wrong_names_the_field(running: Any, fields: dict[str, Any], code: str, param: str):
    assert refused(running.client.post(EDITS, json={**FAST, **fields})) == (code, param)


def test_forms_that_are_wrong_name_the_field(running: Any, form: dict[str, str]):
    post, file = running.client.post, ("a.png", png())
    assert refused(post(EDITS, data=form, files=[("picture", file)])) == ("invalid_form", "picture")
    assert refused(post(EDITS, data=form, files=[("mask", file)] * 2)) == ("invalid_form", "mask")
    assert refused(post(EDITS, data={**form, "n": ["1", "2"]}, files=[("image", file)])) == ("invalid_form", "n")
    assert refused(post(EDITS, data={**form, "steps": "2"}, files=[("image", file)])) == ("unknown_parameter", "steps")


@pytest.mark.parametrize("seed", [-1, "-1", None])
def test_any_seed_is_a_new_one_each_time(running: Any, seed: Any):
    seeds = {running.paint(seed=seed, num_inference_steps=1).json()["data"][0]["seed"] for _ in range(2)}
    assert len(seeds) == 2 and min(seeds) >= 0


@pytest.mark.parametrize("field", NUMBERS)
def test_true_is_not_read_as_a_number(running: Any, field: str):
    for value in (True, False):
        answer = running.paint(**{field: value})
        assert refused(answer) == ("invalid_value", field)
        assert answer.json()["error"]["message"] == f"`{field}`: it is true or false, and a number is asked."


def test_every_number_of_a_request_is_one_that_true_is_not_read_as():
    kinds = {name: str(field.annotation) for name, field in EditFields.model_fields.items()}
    assert set(NUMBERS) == {name for name, kind in kinds.items() if "int" in kind or "float" in kind}


def test_a_form_that_cannot_be_read_is_said_in_one_sentence(running: Any):
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = running.client.post(EDITS, content=b"no boundary", headers=kind)
    assert refused(answer)[0] == "invalid_form"
    said = answer.json()["error"]["message"]
    assert said.startswith("The form cannot be read: ") and said.endswith(".") and not said.endswith("..")


def test_fields_of_openais_api_that_mean_nothing_here_are_left_aside(running: Any):
    plain = painted(running.paint(seed=1, num_inference_steps=1))
    for name in LEFT_ASIDE:
        for value in ("high", 7, ["x"], {"a": 1}):
            assert painted(running.paint(seed=1, num_inference_steps=1, **{name: value})) == plain
    nothing = {"negative_prompt": "", "whatever": None, "strength": None, "quality": None, "style": None}
    assert painted(running.paint(seed=1, num_inference_steps=1, **nothing)) == plain


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"width": 64}, "invalid_size", "height"),
        ({"width": 64, "height": 96, "size": "64x64"}, "invalid_size", "width"),
        ({"aspect_ratio": "16:9", "size": "64x64"}, "invalid_size", "aspect_ratio"),
        ({"aspect_ratio": "5:1", "size": "auto"}, "invalid_size", "aspect_ratio"),
        ({"aspect_ratio": "wide"}, "invalid_value", "aspect_ratio"),
        ({"negative_prompt": "blurry"}, "unsupported_parameter", "negative_prompt"),
        ({"strength": 0.5}, "unsupported_parameter", "strength"),
        ({"steps": 4}, "unknown_parameter", "steps"),
        ({"\ud800": 4}, "unknown_parameter", "\\ud800"),
        ({"image": "data:,"}, "unsupported_parameter", "image"),
    ],
)
def test_fields_that_are_not_supported_or_do_not_agree_are_refused(
    running: Any, fields: dict[str, Any], code: str, param: str
):
    body = json.dumps({"prompt": "a boat", **fields})
    assert refused(running.client.post("/v1/images/generations", content=body)) == (code, param)


def test_what_is_not_known_says_what_is(running: Any):
    said = running.paint(cfg_scale=3).json()["error"]
    assert said["message"] == "There is no field `cfg_scale` here: did you mean `guidance_scale`?"
    said = running.paint(promt="x").json()["error"]
    assert said["message"] == "There is no field `promt` here: did you mean `prompt`?"
    said = running.paint(zzz="x").json()["error"]
    assert said["message"] == "There is no field `zzz` here: /docs lists the fields."
    said = running.paint(negative_prompt="fog").json()["error"]
    assert said["message"].startswith("`negative_prompt` is not supported: the model has no place for")


def test_the_description_says_the_same_as_the_reading(running: Any):
    paths = running.client.get("/openapi.json").json()["paths"]
    content = paths[EDITS]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    for kind in content.values():
        assert set(EditFields.model_fields) <= set(kind["schema"]["properties"])
    assert content["application/json"]["schema"]["additionalProperties"] == {"type": "null"}


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("8192x8192", "8192x8192 is too large: it has 67108864 pixels, and 16384 are the most painted here"),
        ("0x64", "it is not WIDTHxHEIGHT in pixels"),
        ("64", "it is not WIDTHxHEIGHT in pixels"),
        ("65x64", "both sides must be multiples of 32"),
    ],
)
def test_a_size_that_is_not_painted_is_the_sizes_fault(start: Callable[..., Any], size: str, words: str):
    begun = time.perf_counter()
    said = start(max_area_px=128 * 128).paint(size=size).json()["error"]
    assert words in said["message"] and said["param"] == "size" and "prompt" not in said["message"]
    assert time.perf_counter() - begun < 10


PROMPTS = {
    "empty": "", "blank": " \t\u3000\n", "control": "a <|image|> b", "rtl": "שלום עולם", "combining": "e\u0301\u0302" * 200,
    "long": "a" * 100_000, "longest": "hello " * 1333, "surrogate": "a \ud83d b", "nul": "a\0b", "emoji": "🛶" * 20,
    "quoted": '"A" ' * 2000, "unclosed": "“a " * 2600, "apostrophes": "'a" * 4000,
}  # fmt: skip
TAKEN = {"rtl", "combining", "emoji"}


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_is_judged_before_it_waits(running: Any, name: str):
    # a server that ends takes nothing on, so that what can be painted is refused where it would wait
    running.server.scheduler.draining = True
    body = json.dumps({**FAST, "prompt": PROMPTS[name]})
    seconds = []
    for _ in range(3):  # the tokenizer is read with the first, and others use this machine too
        begun = time.perf_counter()
        answer = running.client.post("/v1/images/generations", content=body)
        seconds.append(time.perf_counter() - begun)
    assert answer.status_code == (503 if name in TAKEN else 400), answer.text
    assert min(seconds) < 0.2
    if name not in TAKEN:
        assert answer.json()["error"]["param"] == "prompt"


def test_a_model_has_the_names_that_it_is_served_by(start: Callable[..., Any]):
    running = start(served_names=("gpt-image-1", "org/other"))
    listed = running.client.get("/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["gpt-image-1", "org/other"]
    assert running.client.get("/v1/models/org/other").json()["id"] == "org/other"
    for name in ("gpt-image-1", "org/other", None):
        painted(running.paint(model=name, num_inference_steps=1))
    answer = running.paint(model="tiny")
    assert refused(answer, 404) == ("model_not_found", "model")
    assert answer.json()["error"]["message"] == "The model served here is `gpt-image-1` or `org/other`."


def test_what_is_painted_is_told_where_marks_were_made_straight(start: Callable[..., Any], pipeline: Any):
    import dataclasses

    running, before = start(), pipeline.config
    assert "revised_prompt" not in running.paint(prompt="a “B”", num_inference_steps=1).json()["data"][0]
    pipeline.config = dataclasses.replace(before, prompt=PromptConfig("straight"))
    try:
        (one,) = start().paint(prompt="a « B »", num_inference_steps=1, seed=1).json()["data"]
        (same,) = start().paint(prompt='a "B"', num_inference_steps=1, seed=1).json()["data"]
    finally:
        pipeline.config = before
    assert one["revised_prompt"] == 'a "B"' and one["b64_json"][:5000] == same["b64_json"][:5000]
    assert "revised_prompt" not in same

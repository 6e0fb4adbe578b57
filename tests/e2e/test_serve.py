"""`sampan serve` as its users meet it: the official client, a kill, an end in order."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from e2e.command import sampan
from e2e.serving import Served, crowd, explore, serving
from uploaded import png

STEPS = {"num_inference_steps": 2, "size": "64x64"}


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tiny_folder, tmp_path_factory.mktemp("served") / "data", "--steps", "1") as found:
        yield found


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


def opened(one: Any) -> Any:
    content = one["b64_json"] if isinstance(one, dict) else one.b64_json
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_the_official_client_generates(client: Any):
    assert [model.id for model in client.models.list()] == ["tiny"]
    body = {"seed": 3, "num_inference_steps": 2}
    answer = client.images.generate(prompt="a boat", model="tiny", n=2, size="64x96", extra_body=body)
    assert [opened(one).size for one in answer.data] == [(64, 96)] * 2
    assert answer.usage.output_tokens > 0 and answer.data[0].seed == 3 and answer.data[1].seed == 4
    answer = client.images.generate(
        prompt="a boat", output_format="webp", output_compression=60, response_format="url", extra_body=STEPS
    )
    assert answer.data and answer.data[0].url
    assert Image.open(io.BytesIO(httpx.get(answer.data[0].url).content)).format == "WEBP"


def test_the_official_client_edits(client: Any):
    files = [("a.png", png(64, 64, seed=1)), ("b.png", png(64, 64, seed=2))]
    first = client.images.edit(image=files, prompt="both", extra_body=STEPS)
    assert first.data and opened(first.data[0]).size == (64, 64)
    again = client.images.edit(
        image=files[0], prompt="once more", extra_body={**STEPS, "reference_ids": [first.data[0].id]}
    )
    assert again.data and again.data[0].id != first.data[0].id


def test_the_official_client_streams(client: openai.OpenAI):
    events = list(client.images.generate(prompt="a boat", stream=True, partial_images=2, extra_body=STEPS))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, None]
    assert all(opened(event).size for event in events)
    stream = client.images.edit(
        image=("a.png", png()), prompt="x", stream=True, partial_images=1, extra_body={"num_inference_steps": 4}
    )
    assert [event.type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_the_official_client_understands_errors(client: openai.OpenAI):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.images.generate(prompt="a boat", size="100x100")
    assert wrong.value.code == "invalid_size" and wrong.value.param == "size"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.generate(prompt="a boat", model="other")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as kind:
        client.images.edit(image=("a.svg", b"<svg/>"), prompt="x")
    assert kind.value.code == "unsupported_image_type"
    with pytest.raises(openai.APIError) as late:
        list(client.images.generate(prompt="a <sop> boat", stream=True, extra_body=STEPS))
    assert "control token" in str(late.value)


def test_the_same_seed_gives_the_command_lines_picture(served: Served, tiny_folder: Path, tmp_path: Path):
    sampan(
        "generate", "a kite", "--model", tiny_folder, "--seed", "7", "--steps", "3", "--size", "64x64",
        "--device", "cpu", "--dtype", "fp32", "--out", tmp_path / "a.png", cwd=tmp_path,
    )  # fmt: skip
    body = {"prompt": "a kite", "seed": 7, "num_inference_steps": 3, "size": "64x64"}
    answers = [
        httpx.post(f"{served.url}/v1/images/generations", json={**body, **changed}, timeout=60).json()
        for changed in ({}, {"prompt": "a boat"})
    ]
    painted, other = (opened(answer["data"][0]) for answer in answers)
    assert not np.array_equal(np.asarray(painted), np.asarray(other))
    alone: Any
    with Image.open(tmp_path / "a.png") as alone:
        assert np.array_equal(np.asarray(painted), np.asarray(alone))
        assert painted.text["sampan"] and alone.text["sampan"]


def test_after_a_kill_every_picture_that_was_handed_out_is_there(tiny_folder: Path, tmp_path: Path):
    made: dict[str, bytes] = {}
    with serving(tiny_folder, tmp_path / "data") as served:

        def ask() -> None:
            with httpx.Client(base_url=served.url, timeout=60) as client:
                while True:
                    try:
                        body = {"prompt": "a boat", "num_inference_steps": 1, "size": "64x64"}
                        one = client.post("/v1/images/generations", json=body).json()["data"][0]
                    except httpx.TransportError:
                        return
                    made[one["id"]] = base64.b64decode(one["b64_json"])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60
        while len(made) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        served.kill()
        for thread in threads:
            thread.join()
    assert len(made) >= 6
    with serving(tiny_folder, tmp_path / "data") as served:
        for picture_id, content in made.items():
            assert httpx.get(f"{served.url}/v1/images/{picture_id}").content == content
        past = httpx.get(f"{served.url}/v1/history?limit=100").json()["data"]
        assert made.keys() <= {one["id"] for one in past}


def test_told_to_end_it_finishes_what_it_took_on(tiny_folder: Path, tmp_path: Path):
    answers: list[int] = []
    with serving(tiny_folder, tmp_path / "data") as served:

        def ask() -> None:
            body = {"prompt": "a boat", "num_inference_steps": 60, "size": "64x64"}
            answers.append(httpx.post(f"{served.url}/v1/images/generations", json=body, timeout=60).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        while "sampan_pictures_under_way 3.0" not in httpx.get(f"{served.url}/metrics").text:
            time.sleep(0.01)
        assert served.terminate() == 0
        for thread in threads:
            thread.join()
        assert answers == [200] * 3
        assert not any("Traceback" in line for line in served.said)


def test_it_does_not_listen_for_others_without_a_key(tiny_folder: Path, tmp_path: Path):
    options = ("serve", "--model", tiny_folder, "--host", "0.0.0.0", "--data", tmp_path / "data", "--port", "0")
    done = sampan(*options, cwd=tmp_path, code=1)
    assert "others than this machine could come to `0.0.0.0`, and there is no key" in done.stderr
    key = sampan("serve", "--data", tmp_path / "data", "--add-key", "alice", cwd=tmp_path).stdout.strip()
    assert key.startswith("sk-sampan-")
    assert sampan("serve", "--data", tmp_path / "data", "--list-keys", cwd=tmp_path).stdout == "alice\n"


def test_two_servers_do_not_share_a_folder(served: Served, tiny_folder: Path, tmp_path: Path):
    done = sampan("serve", "--model", tiny_folder, "--data", served.data, "--port", "0", cwd=tmp_path, code=1)
    assert "is in use" in done.stderr and "pass another --data FOLDER" in done.stderr


def test_many_clients_get_their_own_pictures_or_are_told_to_come_again(served: Served):
    ended, wrong = crowd(served, clients=12, requests=3)
    assert ended.keys() <= {200, 429, 503} and ended.total() == 36 and ended[200] >= 12
    assert wrong == []


def test_what_the_description_allows_ends_as_it_says(served: Served):
    statuses, undocumented = explore(served, 18)
    assert undocumented == []
    assert statuses.total() >= 18
    assert served.process.poll() is None and not any("Traceback" in line for line in served.said)

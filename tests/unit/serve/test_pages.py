"""The description of the API as a page, and the policy under which reports are shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.checkpoint.lora import LoraAdapter
from sampan.report.render import render_lines
from sampan.serve.pages import Pages, description, strict
from well_formed import assert_well_formed

SCRIPT = "<script>alert(1)</script>"
SCHEMA = {
    "paths": {
        "/v1/x": {
            "post": {
                "description": f"Makes {SCRIPT}",
                "parameters": [{"name": "id", "in": "path", "schema": {"type": "string", "maxLength": 8}}],
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {
                                "required": ["prompt"],
                                "properties": {
                                    "prompt": {"type": "string", "description": "what to paint"},
                                    "n": {"type": "integer", "minimum": 1},
                                },
                            }
                        }
                    }
                },
                "responses": {"200": {"description": f"done {SCRIPT}"}},
            },
            "get": {"summary": "Tells", "responses": {"404": {"description": "gone"}}},
        }
    }
}


def test_the_description_names_every_field_and_escapes_what_comes_in():
    page = description(SCHEMA)
    text = " ".join(assert_well_formed(page).split())
    assert text.count(SCRIPT) == 2
    for part in (
        "POST /v1/x", "id string, ≤ characters 8 path", "prompt string required. what to paint", "n integer, ≥ 1",
        "Body: application/json", "200 done", "GET /v1/x Tells", "404 gone",
    ):  # fmt: skip
        assert part in text
    assert page.count("<table>") == 3


def test_pages_of_our_own_need_no_exception_of_a_policy(tmp_path: Path):
    path = tmp_path / "plan.html"
    path.write_text(render_lines("a plan", ["line"]), encoding="utf-8")
    shown = Pages(plan_report=path)._reports["plan"]
    for policy in (shown.policy, strict(shown.content).policy):
        assert "unsafe" not in policy and policy.count("'sha256-") == 1 and "script-src 'sha" not in policy


def test_the_loras_that_are_loaded_are_told(start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    running = start()
    assert running.client.get("/v1/capabilities").json()["loras"] == []
    run = Path("runs/ink/lora")
    files = [
        (run / "ar" / "adapter_model.safetensors", 0.7),
        (run / "decoder" / "pytorch_lora_weights.safetensors", 0.7),
    ]
    files += [(Path("loras/gold.safetensors"), 1.0), (Path("peft/adapter_model.safetensors"), -0.5)]
    adapters = tuple(LoraAdapter("decoder", {}, file, "", strength) for file, strength in files)
    monkeypatch.setattr(running.server.engine.pipeline, "loras", adapters)
    assert running.client.get("/v1/capabilities").json()["loras"] == [
        {"name": "ink", "scale": 0.7}, {"name": "gold", "scale": 1.0}, {"name": "peft", "scale": -0.5}
    ]  # fmt: skip

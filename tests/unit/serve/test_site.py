"""The description of the API as a page, and the policy under which reports are shown."""

from __future__ import annotations

from pathlib import Path

from sampan.report.render import render_lines
from sampan.serve.site import Pages, description, strict
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

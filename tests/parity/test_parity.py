"""Every part computes what the published implementation computes, forward and backward."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from parity.compare import CASES, FP32_TOLERANCE, ID_CASES, Case, error
from parity.gradients import GRADIENT_TOLERANCE, GRADIENTS, gradient_errors
from parity.ours import Ours
from parity.theirs import Theirs
from sampan.errors import RequestError


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_answers_agree(case: Case, ours: Ours, theirs: Theirs):
    assert error(case, ours, theirs) <= FP32_TOLERANCE


@pytest.mark.parametrize("case", ID_CASES, ids=lambda case: case.label)
def test_integers_are_identical(case: Case, ours: Ours, theirs: Theirs):
    assert error(case, ours, theirs) == 0


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_agree_for_every_parameter(name: str, ours: Ours, theirs: Theirs):
    errors = gradient_errors(name, ours, theirs)
    assert {key: value for key, value in errors.items() if value > GRADIENT_TOLERANCE} == {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(max_size=60))
@example(prompt="  leading and trailing  \n")
@example(prompt="tab\tline\r\nend\n")
@example(prompt="👩‍👩‍👧 emoji, combining e\u0301, null \x00, wide\u3000space")
@example(prompt="<sop> is refused")
@example(prompt="{{ 7 * 7 }} {% raw %}")
def test_any_text_becomes_the_library_s_ids(prompt: str, ours: Ours, theirs: Theirs):
    if ours.tokenizer.control_tokens.find(prompt):
        with pytest.raises(RequestError, match="that is a control token of this model's tokenizer"):
            ours.prompt_ids(prompt, (96, 64))
    else:
        assert ours.prompt_ids(prompt, (96, 64)).tolist() == theirs.prompt_ids(prompt, (96, 64)).tolist()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=st.text(alphabet="ab '\"“”‘’「」\n", max_size=30))
def test_any_quotes_are_read_as_the_library_reads_them(prompt: str, ours: Ours, theirs: Theirs):
    assert ours.glyph_texts(prompt) == theirs.glyph_texts(prompt)

"""Text for people: safe on a terminal and on one line; probabilities that claim no more than they are."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tussis.shared.text import printable, probability

anything = st.text(st.characters(categories=None, exclude_categories=()))


@given(anything)
def test_printable_text_is_one_line_that_no_terminal_obeys_and_every_encoding_takes(text: str) -> None:
    shown = printable(text)
    assert shown.splitlines() in ([], [shown])
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    assert not [char for char in shown if unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF")]
    assert not [char for char in shown if unicodedata.bidirectional(char) in ("LRI", "RLI", "FSI", "PDI")]
    shown.encode("utf-8")
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://clinic/ward 3/ä é 咳 😷 عربى.wav", "s3://clinic/ward 3/ä é 咳 😷 عربى.wav"),
        ("back\\slash", "back\\slash"),
        ("a\tb\nc\r", "a\\tb\\nc\\r"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b31m\x85", "\\x9b31m\\x85"),
        ("wav.\u202eexe", "wav.\\u202eexe"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        (b"caf\xe9.wav".decode("utf-8", "surrogateescape"), "caf\\udce9.wav"),
        # What a family of three and a Persian word are written with stays.
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
    ],
)
def test_what_is_not_fit_for_a_line_is_escaped_and_the_rest_stays(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("value", "threshold", "shown"),
    [
        (0.5, None, "0.500"),
        (0.99998, None, ">0.999"),
        (0.9995, None, ">0.999"),
        (0.99951, None, ">0.999"),
        (0.9994, None, "0.999"),
        (1.0, None, "1.000"),
        (1 - 2**-53, None, ">0.999"),
        (0.00001, None, "<0.001"),
        (5e-324, None, "<0.001"),
        (0.0, None, "0.000"),
        (0.00051, None, "0.001"),
        (0.74996, 0.75, "0.74996"),
        (0.75, 0.75, "0.750"),
        (0.75004, 0.75, "0.75004"),
        (0.7504, 0.75, "0.7504"),
        (0.751, 0.75, "0.751"),
        (math.nextafter(0.61, 1), 0.61, "0.6100000000000001"),
        (0.99998, 0.5, ">0.999"),
        (0.99998, 0.9999, "0.99998"),
        (0.00001, 0.00002, "0.00001"),
        (0.00003, 0.00002, "0.00003"),
        (1e-9, 0.0, "0.000000001"),
    ],
)
def test_a_probability_is_never_shown_as_what_it_is_not(value: float, threshold: float | None, shown: str) -> None:
    assert probability(value, threshold) == shown


@given(st.floats(0, 1), st.one_of(st.none(), st.floats(0, 1)))
def test_what_is_shown_is_on_its_side_of_0_1_and_the_threshold(value: float, threshold: float | None) -> None:
    shown = probability(value, threshold)
    if shown[0] in "<>":
        bound = float(shown[1:])
        assert (value > bound) if shown[0] == ">" else (value < bound)
        assert 0 < value < 1
        assert threshold is None or 0.001 <= threshold <= 0.999
        return
    for mark in (0.0, 1.0, *([] if threshold is None else [threshold])):
        assert (float(shown) > mark, float(shown) < mark) == (value > mark, value < mark)
    assert abs(float(shown) - value) <= 0.0005

"""The tokenizer of the demo models keeps its documented rules."""

import pytest
from hypothesis import given, strategies as st

from project.tokenizer import count, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Hello world", ["Hello", " world"]),
        ("tokenizer", ["tokeni", "zer"]),
        ("a, b", ["a", ",", " b"]),
        ("a  b", ["a", " ", " b"]),
        ("one\n\ntwo", ["one", "\n\n", "two"]),
        ("!!!!!", ["!!!!", "!"]),
        ("   ", ["   "]),
        ("Grüße 你好", ["Grüße", " 你好"]),
    ],
)
def test_a_text_is_cut_by_the_three_rules(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected
    assert count(text) == len(expected)


@given(st.text())
def test_cutting_loses_nothing(text: str) -> None:
    assert "".join(tokens(text)) == text


@given(st.text(), st.text(alphabet="xyz", min_size=1))
def test_a_new_line_keeps_two_texts_apart(before: str, after: str) -> None:
    # A word after a line feed starts a token of its own, so the parts can be counted alone.
    assert count(f"{before}x\n{after}") == count(f"{before}x") + 1 + count(after)

"""The demo models answer the same to the same, count truly, and keep to their limit."""

import math

import pytest
from hypothesis import given, strategies as st

from project import tokenizer
from project.demo_models import CHAT_MODELS, EMBEDDING_DIMENSIONS, IMAGE_TOKENS, embed, reply

SMALL, LARGE = CHAT_MODELS["demo-small"], CHAT_MODELS["demo-large"]
texts = st.lists(st.text(), max_size=4)


@given(texts, st.sampled_from([SMALL, LARGE]))
def test_the_counts_are_those_of_the_tokenizer(asked: list[str], model: object) -> None:
    said = reply(SMALL if model is SMALL else LARGE, asked)
    assert tokenizer.tokens(said.text) == said.tokens
    assert said.tokens_input == sum(tokenizer.count(text) for text in asked)
    assert said.finished


@given(texts)
def test_the_same_question_gets_the_same_answer(asked: list[str]) -> None:
    assert reply(SMALL, asked) == reply(SMALL, asked)


def test_models_and_questions_differ_in_their_answers() -> None:
    answers = {reply(model, [asked]).text for model in (SMALL, LARGE) for asked in ("one", "two")}
    assert len(answers) == 4


def test_the_large_model_says_more() -> None:
    assert reply(LARGE, ["hello"]).tokens_output > reply(SMALL, ["hello"]).tokens_output


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_the_limit_cuts_the_answer_where_it_stands(limit: int) -> None:
    cut, whole = reply(SMALL, ["hello"], max_tokens=limit), reply(SMALL, ["hello"])
    assert (cut.tokens, cut.finished) == (whole.tokens[:limit], False)


def test_a_limit_of_exactly_the_answer_does_not_cut_it() -> None:
    whole = reply(SMALL, ["hello"])
    assert reply(SMALL, ["hello"], max_tokens=whole.tokens_output) == whole
    assert not reply(SMALL, ["hello"], max_tokens=whole.tokens_output - 1).finished


def test_an_image_counts_its_fixed_number() -> None:
    assert reply(SMALL, ["two words"], images=2).tokens_input == 2 + 2 * IMAGE_TOKENS


@given(st.text(), st.integers(1, EMBEDDING_DIMENSIONS))
def test_an_embedding_has_length_one(text: str, dimensions: int) -> None:
    vector = embed(text, dimensions)
    assert len(vector) == dimensions
    assert math.isclose(sum(x * x for x in vector), 1.0)


def test_texts_that_share_words_are_nearer_to_each_other() -> None:
    question, related, other = (
        embed("green river stone"),
        embed("green river bank"),
        embed("ticket office hours"),
    )
    assert _cosine(question, related) > _cosine(question, other)


def _cosine(left: list[float], right: list[float]) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))

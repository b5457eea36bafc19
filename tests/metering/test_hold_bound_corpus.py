"""The bound of each request of the corpus lies above what its answer reports, in tokens and in money."""

from decimal import Decimal

import pytest

from metering.estimate import RequestFacts
from metering.hold_bound import HoldBound, hold_amount, hold_bound
from pricing.units import is_token
from tests.metering.corpus import Case, load, names, request_body
from tests.metering.test_corpus import NOW, card_of

COUNT_MAX = 10**9  # more than any request can cause: a counter is tested there, and not a call


def is_an_answer(case: Case) -> bool:
    """Whether it answers one request with something that was used."""
    counts = [int(Decimal(count)) for count in case.expect.buckets.values()]
    return bool(counts) and max(counts) < COUNT_MAX and case.framing != "websocket"


CASES = [name for name in names() if is_an_answer(load(name))]


def dense_request(case: Case) -> bytes:
    """The request with its words as one digit each, which is one token to some tokenizers: as dense as text gets."""
    return request_body(case).replace(b"ant ", b"7")


def bound_of(case: Case) -> HoldBound:
    return hold_bound(
        dense_request(case), case.wire_format, RequestFacts(model=model_of(case), readable=True)
    )


def model_of(case: Case) -> str:
    return str(case.request.model or case.request.body.get("model") or case.expect.model)


def amount_of(case: Case, bound: HoldBound) -> Decimal | None:
    """By the model that served, for which alone the file has rates."""
    return hold_amount(
        card_of(case),
        bound,
        book="cost",
        currency="USD",
        provider=case.provider,
        model=case.expect.model,
        at=NOW,
    )


@pytest.mark.parametrize("name", CASES)
def test_no_answer_of_the_corpus_goes_beyond_the_bound_of_its_request(name: str) -> None:
    case = load(name)
    bound, expect = bound_of(case), case.expect
    if bound.tokens_output is not None and expect.tokens_output is not None:
        assert bound.tokens_output >= expect.tokens_output
    if bound.tokens_input is not None and expect.tokens_input is not None:
        assert sum(bound.tokens_input.values()) >= expect.tokens_input
    amount = amount_of(case, bound)
    if amount is not None:
        assert amount >= cost_within(case, bound)


def cost_within(case: Case, bound: HoldBound) -> Decimal:
    """What the answer cost, but for units that the request does not bound and that are named as open."""
    lines = case.cost.lines if case.cost is not None else []
    bounded = [line for line in lines if is_token(line.bucket) or line.bucket in ("request", *bound.units)]
    if len(bounded) < len(lines):
        assert bound.open_ended
    return sum((Decimal(line.amount) for line in bounded), Decimal(0))


def test_most_of_the_corpus_is_judged() -> None:
    """A bound that is not known is above nothing."""
    bounds = {name: bound_of(load(name)) for name in CASES}
    assert sum(bound.tokens_input is not None for bound in bounds.values()) >= 0.8 * len(CASES)
    assert sum(amount_of(load(name), bound) is not None for name, bound in bounds.items()) >= 0.5 * len(CASES)

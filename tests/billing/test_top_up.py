"""Credits that buy themselves: once, however many sweeps look, whenever one dies, and whatever the payment does."""

import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connections
from django.test import Client, override_settings

from billing import ledger, top_up
from billing.ledger_check import check_ledger
from billing.models import ApiKey, Balance, Customer, Grant, OperatorToken, TopUp, TopUpRule
from billing.payments import Payment, current_payments
from billing.tasks import top_up_credits
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Till:
    """Takes payments in memory, each key once, as a provider of payments does. `says`: what becomes of the next ones."""

    def __init__(self, *says: Any) -> None:
        self.says = list(says)
        self.taken: dict[str, tuple[UUID, Decimal, Payment]] = {}
        self.asked = 0
        self._lock = threading.Lock()

    def charge(self, customer_id: UUID, amount: Decimal, currency: str, *, key: str) -> Payment:
        with self._lock:
            self.asked += 1
            if key in self.taken and self.taken[key][2].state != "pending":
                return self.taken[key][2]
            said = self.says.pop(0) if self.says else Payment("paid", f"pay_{self.asked}")
            if isinstance(said, Exception):
                raise said
            self.taken[key] = (customer_id, amount, said)
            return said

    @property
    def sum_taken(self) -> Decimal:
        return sum(
            (amount for _, amount, payment in self.taken.values() if payment.state == "paid"), Decimal(0)
        )


@pytest.fixture
def customer() -> Customer:
    found = payer()[0]
    ledger.set_hard(found, hard=True)
    return found


def a_rule(customer: Customer, **values: Any) -> TopUpRule:
    said = {"below": 5, "amount": 20, "per_month_max": 60, "cool_down_s": 600} | values
    return TopUpRule.objects.create(customer=customer, **said)


def available(customer: Customer) -> Decimal:
    return Balance.objects.get(customer=customer).available


def granted(customer: Customer, amount: str) -> None:
    ledger.grant(customer, Decimal(amount), "USD", key=f"start-{amount}", at=NOON)


@pytest.mark.parametrize(("there", "bought"), [("4.999999999999", 1), ("5", 0), ("5.000000000001", 0)])
def test_below_the_threshold_it_buys_and_at_it_it_does_not(
    customer: Customer, there: str, bought: int
) -> None:
    granted(customer, there)
    a_rule(customer)
    assert top_up.top_up_due(Till(), NOON) == bought
    assert available(customer) == Decimal(there) + 20 * bought


def test_what_is_bought_is_a_paid_grant_that_names_the_purchase(customer: Customer) -> None:
    a_rule(customer)
    till = Till()
    top_up.top_up_due(till, NOON)
    purchase, grant = TopUp.objects.get(), Grant.objects.get()
    assert (purchase.state, purchase.reference, purchase.finished_at) == ("paid", "pay_1", NOON)
    assert (grant.kind, grant.amount, grant.key) == ("paid", 20, f"top-up/{purchase.pk}")
    assert list(till.taken) == [grant.key]
    assert list(check_ledger()) == []


@pytest.mark.parametrize(("after_s", "purchases"), [(599, 1), (600, 2)])
def test_it_cools_down_between_two_purchases(customer: Customer, after_s: int, purchases: int) -> None:
    a_rule(customer, below=1000)
    till = Till()
    top_up.top_up_due(till, NOON)
    top_up.top_up_due(till, NOON + timedelta(seconds=after_s))
    assert TopUp.objects.count() == purchases


def test_a_month_has_its_most_and_the_next_one_its_own(customer: Customer) -> None:
    a_rule(customer, below=1000, per_month_max=50)  # 20 + 20 fit, a third does not
    till = Till()
    for hour in range(5):
        top_up.top_up_due(till, NOON + timedelta(hours=hour))
    assert till.sum_taken == 40
    top_up.top_up_due(till, datetime(2026, 12, 1, tzinfo=NOON.tzinfo))
    assert till.sum_taken == 60 == available(customer)


def test_of_many_sweeps_at_once_one_buys(customer: Customer) -> None:
    a_rule(customer)
    till, errors = Till(), []

    def sweep() -> None:
        try:
            top_up.top_up_due(till, NOON)
        except Exception as error:  # noqa: BLE001  the test says which
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sweep) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert (TopUp.objects.count(), till.sum_taken, available(customer)) == (1, 20, 20)


def test_a_sweep_that_died_after_the_payment_is_resumed_without_paying_again(customer: Customer) -> None:
    a_rule(customer)
    till = Till()
    purchase = TopUp.objects.create(customer=customer, amount=20, currency="USD", created_at=NOON)
    till.charge(customer.pk, Decimal(20), "USD", key=f"top-up/{purchase.pk}")  # and then it died
    assert top_up.top_up_due(till, NOON + timedelta(hours=1)) == 1
    assert (till.asked, till.sum_taken, available(customer)) == (2, 20, 20)
    assert top_up.top_up_due(till, NOON + timedelta(hours=2)) == 0


def test_what_is_pending_or_unknown_is_asked_for_again_under_the_same_key(customer: Customer) -> None:
    a_rule(customer)
    till = Till(Payment("pending"), OSError("the provider is away"), Payment("paid", "pay_9"))
    for minute in range(3):
        assert TopUp.objects.filter(state="paid").count() == 0
        top_up.top_up_due(till, NOON + timedelta(hours=minute))
    assert (TopUp.objects.get().reference, len(till.taken), available(customer)) == ("pay_9", 1, 20)


def test_purchases_of_which_nothing_is_known_keep_no_other_from_its_turn() -> None:
    """Two whole pages of them are older than the one that can be paid."""
    for number in range(5):
        one = payer(f"payer-{number}")[0]
        ledger.set_hard(one, hard=True)
        a_rule(one)
    till = Till(*(OSError("the provider is away") for _ in range(4)))
    assert top_up.top_up_due(till, NOON, page=2) == 1
    assert (till.asked, TopUp.objects.filter(state="pending").count()) == (5, 4)


def test_after_three_payments_declined_in_a_row_the_rule_is_off(customer: Customer) -> None:
    a_rule(customer)
    till = Till(*(Payment("declined", detail="no funds") for _ in range(9)))
    for hour in range(5):
        top_up.top_up_due(till, NOON + timedelta(hours=hour))
    assert list(TopUp.objects.values_list("state", "detail")) == [("declined", "no funds")] * 3
    assert not TopUpRule.objects.get().is_active
    assert available(customer) == 0


def test_a_suspended_customer_buys_nothing(customer: Customer) -> None:
    a_rule(customer)
    Customer.objects.update(is_active=False)
    assert top_up.top_up_due(Till(), NOON) == 0


def test_the_database_refuses_a_second_pending_purchase(customer: Customer) -> None:
    TopUp.objects.create(customer=customer, amount=1, currency="USD")
    with pytest.raises(IntegrityError):
        TopUp.objects.create(customer=customer, amount=1, currency="USD")


SHARED = Till()


def shared_till() -> Till:
    return SHARED


def test_the_job_buys_where_there_is_a_way_to_pay_and_nothing_otherwise(customer: Customer) -> None:
    a_rule(customer)
    assert top_up_credits() == 0
    assert TopUp.objects.count() == 0
    with override_settings(TOLLGATE={"PAYMENTS": f"{__name__}.shared_till"}):
        assert top_up_credits() == 1
    with (
        override_settings(TOLLGATE={"PAYMENTS": "nowhere.Till"}),
        pytest.raises(ImproperlyConfigured, match="PAYMENTS"),
    ):
        current_payments()


def ask(secret: str, method: str, body: Any = None) -> Any:
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    return client.generic(method, "/v1/customers/payer/top-up", json.dumps(body), "application/json")


def test_the_rule_is_set_shown_and_taken_back_over_the_api(customer: Customer) -> None:
    operator, key = OperatorToken.issue("tests")[1], ApiKey.issue(customer, "own")[1]
    assert ask(operator, "GET").status_code == 404
    made = ask(operator, "PUT", {"below": 5, "amount": "20", "per_month_max": 60})
    assert (made.status_code, made.json()["cool_down_s"], made.json()["currency"]) == (201, 600, "USD")
    top_up.top_up_due(Till(), NOON)
    shown = ask(key, "GET").json()
    assert [(one["amount"], one["state"]) for one in shown["purchases"]] == [("20", "paid")]
    assert ask(key, "PUT", {"below": 1, "amount": 1, "per_month_max": 1}).status_code == 403
    assert (
        ask(operator, "PUT", {"below": 5, "amount": 20, "per_month_max": 60, "is_active": False}).status_code
        == 200
    )
    assert ask(operator, "DELETE").status_code == 204
    assert TopUpRule.objects.count() == 0


@pytest.mark.parametrize(
    "change",
    [{"below": -1}, {"amount": 0}, {"per_month_max": 19}, {"cool_down_s": 59}, {"cool_down_s": 86_401}, {"amount": "NaN"}, {"x": 1}],
)  # fmt: skip
def test_what_is_no_rule_is_told_so(customer: Customer, change: Any) -> None:
    body = {"below": 5, "amount": 20, "per_month_max": 60} | change
    answer = ask(OperatorToken.issue("tests")[1], "PUT", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")

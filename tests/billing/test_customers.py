"""Customers, memberships and secrets as rows."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from billing import keys
from billing.models import ApiKey, Customer, Membership, OperatorToken
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db


def test_a_customer_is_found_by_its_id_and_by_its_external_id() -> None:
    customer, _ = payer("org-123")
    assert Customer.objects.named("org-123") == customer
    assert Customer.objects.named(str(customer.pk)) == customer
    assert Customer.objects.named("org-124") is None
    assert Customer.objects.named(str(uuid4())) is None


def test_an_external_id_that_looks_like_an_id_is_found_too() -> None:
    customer, _ = payer("01234567-89ab-cdef-0123-456789abcdef")
    assert Customer.objects.named("01234567-89ab-cdef-0123-456789abcdef") == customer


@pytest.mark.parametrize("name", ["track", "CHECK", "events", "health", "a/b", "", "-x", "a b", "org-1\n"])
def test_a_name_that_cannot_stand_in_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="external_id"):
        Customer(external_id=name, name="Name").full_clean()


def test_a_currency_is_three_capitals() -> None:
    with pytest.raises(ValidationError, match="currency"):
        Customer(external_id="org", name="Name", currency="usd").full_clean()


def test_periods_are_calendar_months() -> None:
    customer, _ = payer(created_at=datetime(2026, 1, 17, 9, 30, tzinfo=UTC))
    period = customer.period_at(datetime(2026, 2, 28, 23, 59, tzinfo=UTC))
    assert (period.start, period.end) == (datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))


def test_saving_moves_the_time_of_the_update() -> None:
    customer, _ = payer()
    before = customer.updated_at
    customer.save()
    assert customer.updated_at > before


def test_a_key_is_kept_as_its_digest_and_its_first_characters() -> None:
    customer, secret = payer()
    kept = ApiKey.objects.get()
    assert (kept.sha256, kept.prefix, kept.customer) == (keys.digest(secret), secret[:14], customer)
    assert secret not in {str(value) for value in ApiKey.objects.values().get().values()}
    assert str(kept) == f"{secret[:14]}… tests"


def test_revoking_twice_changes_nothing() -> None:
    _, _ = payer()
    key = ApiKey.objects.get()
    assert (key.is_live, key.revoke(), key.is_live) == (True, True, False)
    at = key.revoked_at
    assert not key.revoke()
    assert key.revoked_at == at


def test_an_operator_token_has_a_kind_of_its_own() -> None:
    token, secret = OperatorToken.issue("nightly job")
    assert secret.startswith("tgo_")
    assert token.prefix == secret[:10]


def test_a_person_belongs_to_a_customer_once() -> None:
    customer, _ = payer()
    person = get_user_model().objects.create_user("someone")
    Membership.objects.create(customer=customer, user=person, role=Membership.Role.OWNER)
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(customer=customer, user=person)
    assert str(Membership.objects.get()) == "someone, owner of Payer (payer)"

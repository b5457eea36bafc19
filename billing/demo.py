"""Demo data: three customers with a user and a key each, of which one has paid in advance, and an operator. Safe to load again; it never resets what exists.

The secrets are random. Their plaintext is kept in one file, readable by its owner only, so that a second start prints the
same; the database has their hashes, as for any other.
"""

import json
import os
import secrets
import string
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from django.contrib.auth import get_user_model
from django.db import transaction

from billing import keys, ledger
from billing.models import ApiKey, Customer, Grant, Membership, OperatorToken
from billing.subscriptions import OtherCurrency, subscribe
from pricing import clock

PASSWORD_CHARACTERS = 14
PREPAID_CREDITS = Decimal(25)
_CUSTOMERS = (
    ("demo", "Demo Company", "demo@example.com"),
    ("acme", "Acme Inc.", "acme@example.com"),
    ("prepaid", "Prepaid Ltd.", "prepaid@example.com"),
)


class Demo(msgspec.Struct):
    """The plaintext of everything that opens a door in the demo."""

    api_key: str
    acme_api_key: str
    operator_token: str
    passwords: dict[str, str]  # by user name
    prepaid_api_key: str = ""  # a file of before has none


@transaction.atomic
def load(kept_in: Path) -> Demo:
    """Make sure that the demo data is there and that the secrets in the file open it."""
    demo, is_new = _kept(kept_in)
    secret_keys = (demo.api_key, demo.acme_api_key, demo.prepaid_api_key)
    for (external_id, name, email), key in zip(_CUSTOMERS, secret_keys, strict=True):
        customer, _ = Customer.objects.get_or_create(
            external_id=external_id, defaults={"name": name, "company": name, "email": email}
        )
        if not ApiKey.objects.filter(sha256=keys.digest(key)).exists():
            ApiKey.issue(customer, "Demo", secret=key)
        user = _user(external_id, email, demo.passwords[external_id], reset=is_new)
        Membership.objects.get_or_create(
            customer=customer, user=user, defaults={"role": Membership.Role.OWNER}
        )
    _prepay(customer)
    _user(
        "admin", "admin@example.com", demo.passwords["admin"], reset=is_new, is_staff=True, is_superuser=True
    )
    if not OperatorToken.objects.filter(sha256=keys.digest(demo.operator_token)).exists():
        OperatorToken.issue("Demo", secret=demo.operator_token)
    return demo


def _prepay(customer: Customer) -> None:
    """Put the customer on credits, with some to spend."""
    at = clock.now()
    if not customer.subscriptions.exists():
        ledger.grant(
            customer, PREPAID_CREDITS, customer.currency, key="demo", at=at, kind=Grant.Kind.PROMOTIONAL, reason="Demo"
        )  # fmt: skip
        with suppress(OtherCurrency):  # the plan came with the currency of the first start
            subscribe(customer, "prepaid", at)


def _user(name: str, email: str, password: str, *, reset: bool, **flags: bool) -> Any:
    """The user; its password is set where the user is new, or the file that knew the old one is gone."""
    user, created = get_user_model().objects.get_or_create(username=name, defaults={"email": email, **flags})
    if created or reset:
        user.set_password(password)
        user.save(update_fields=["password"])
    return user


def _kept(file: Path) -> tuple[Demo, bool]:
    """The secrets in the file, and whether they were made just now."""
    if file.exists():
        demo = msgspec.json.decode(file.read_bytes(), type=Demo)
        if not demo.prepaid_api_key:
            demo.prepaid_api_key = keys.new_secret(keys.API_KEY_START)
            demo.passwords.setdefault("prepaid", _password())
            _keep(demo, file)
        return demo, False
    demo = Demo(
        api_key=keys.new_secret(keys.API_KEY_START),
        acme_api_key=keys.new_secret(keys.API_KEY_START),
        prepaid_api_key=keys.new_secret(keys.API_KEY_START),
        operator_token=keys.new_secret(keys.OPERATOR_TOKEN_START),
        passwords={name: _password() for name in ("admin", "demo", "acme", "prepaid")},
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    _keep(demo, file)
    return demo, True


def _keep(demo: Demo, file: Path) -> None:
    """Write the file, whole or not at all, for its owner only."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(msgspec.to_builtins(demo), out, indent=2)
    draft.replace(file)


def _password() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(PASSWORD_CHARACTERS))

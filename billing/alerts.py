"""Alerts: sweeps that find the thresholds which were reached, say so once, and send what has been said.

A threshold fires once for each period: the unique row decides, whoever is first. The message is written together with it, so
neither is lost; e-mails go out afterwards, each once where the server takes it, and again later where it does not.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, transaction
from django.db.models import F

from billing.models import Alert, AlertThreshold, Customer, OutboxMessage
from billing.standings import Standing, standings_of
from billing.thresholds import DEFAULTS, Threshold, exhausted_at
from metering.ids import NIL, uuid7
from pricing.money import decimal_string

log = logging.getLogger("billing.alerts")

PAGE = 500
# A call counts in the hour in which it was admitted, and may take an hour to end.
ACTIVE_WITHIN = timedelta(minutes=65)
KIND = "usage.threshold_reached"
MAIL_RETRY = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6))
MAIL_LEASE = timedelta(minutes=5)  # who dies while sending leaves the message to others after it

# One look at an index for each customer, whatever the size of the table.
_ACTIVE = """select c.id from billing_customers c where c.id > %s
    and (select 1 from usage_events e where e.customer_id = c.id and e.occurred_at > %s and e.created_at > %s limit 1) is not null
    order by c.id limit %s"""


def raise_due(at: datetime) -> int:
    """Look at the customers who called lately; how many alerts that made."""
    return sum(_raise_for(customers, at) for customers in _active(at))


def _active(at: datetime) -> Iterator[list[Customer]]:
    since, after = at - ACTIVE_WITHIN, NIL
    while True:
        with connection.cursor() as cursor:
            cursor.execute(_ACTIVE, [_identifier(after), since, since, PAGE])
            ids = [found if isinstance(found, UUID) else UUID(found) for (found,) in cursor.fetchall()]
        if not ids:
            return
        after = ids[-1]
        yield list(Customer.objects.filter(pk__in=ids))


def _identifier(value: UUID) -> Any:
    return value.hex if connection.vendor == "sqlite" else value


def _raise_for(customers: list[Customer], at: datetime) -> int:
    standings, thresholds = standings_of(customers, at), _thresholds(customers)
    _mark_overage(customers, standings)
    reached = [
        (standing, [one for one in thresholds[standing.customer.pk, standing.subject] if one.reached(standing.subject, standing.used, standing.limit)])
        for standing in standings
    ]  # fmt: skip
    known = _known(customers, at)
    made = 0
    for standing, found in reached:
        new = [one for one in found if (*_key(standing), str(one), standing.start) not in known]
        made += sum(_fire(standing, one, at, mails=one is new[-1]) for one in new)
    return made


def _thresholds(customers: list[Customer]) -> "defaultdict[tuple[UUID, str], tuple[Threshold, ...]]":
    """Of each customer and subject, the lowest first."""
    found: defaultdict[tuple[UUID, str], tuple[Threshold, ...]] = defaultdict(lambda: DEFAULTS)
    own: defaultdict[tuple[UUID, str], list[Threshold]] = defaultdict(list)
    rows = AlertThreshold.objects.filter(customer__in=customers).order_by(
        F("percent").asc(nulls_last=True), "amount"
    )
    for row in rows:
        own[row.customer_id, row.subject].append(Threshold(row.percent, row.amount))
    found.update({key: tuple(listed) for key, listed in own.items()})
    return found


def _known(customers: list[Customer], at: datetime) -> set[tuple[Any, ...]]:
    """What has fired in the periods that run: one that began longer ago than this is looked up when it is made."""
    recent = Alert.objects.filter(customer__in=customers, created_at__gt=at - timedelta(days=40))
    return set(recent.values_list("customer_id", "subject", "about", "threshold", "period_start"))


def _key(standing: Standing) -> tuple[UUID, str, str]:
    return standing.customer.pk, standing.subject, standing.about


def _fire(standing: Standing, threshold: Threshold, at: datetime, *, mails: bool) -> bool:
    """Write the alert and its message, unless somebody has. Of several that are reached at once the highest is mailed."""
    customer = standing.customer
    when = exhausted_at(standing.used, standing.limit, standing.start, standing.end, at)
    with transaction.atomic():
        alert, is_new = Alert.objects.get_or_create(
            customer=customer, subject=standing.subject, about=standing.about, threshold=str(threshold), period_start=standing.start,
            defaults={
                "id": uuid7(at), "period_end": standing.end, "used": standing.used, "limit": standing.limit, "exhausted_at": when,
                "created_at": at,
            },
        )  # fmt: skip
        if is_new:
            mail_to = customer.email if mails else ""
            OutboxMessage.objects.create(
                id=uuid7(at), customer=customer, kind=KIND, payload=alert_document(alert, standing.title, standing.unit),
                created_at=at, mail_to=mail_to, mail_due_at=at if mail_to else None,
                mail_subject=_subject(standing, threshold)[:200], mail_text=_text(standing, threshold, when),
            )  # fmt: skip
    return is_new


def alert_document(alert: Alert, title: str = "", unit: str = "") -> dict[str, Any]:
    """The alert as the API and webhooks show it."""
    return {
        "id": str(alert.pk),
        "customer": alert.customer.external_id,
        "subject": alert.subject,
        "about": alert.about,
        "title": title or alert.about,
        "unit": unit,
        "threshold": alert.threshold,
        "used": decimal_string(alert.used),
        "limit": decimal_string(alert.limit),
        "period": {
            "start": alert.period_start.isoformat(),
            "end": alert.period_end.isoformat() if alert.period_end else None,
        },
        "exhausted_at": alert.exhausted_at.isoformat() if alert.exhausted_at else None,
        "created_at": alert.created_at.isoformat(),
    }


def _subject(standing: Standing, threshold: Threshold) -> str:
    if standing.used >= standing.limit:
        return f"{standing.title}: all is used"
    if standing.subject == "credit" and threshold.amount is not None:
        return f"Credits: {threshold} {standing.unit} or less is left"
    return f"{standing.title}: {threshold} used, you are approaching your limit"


def _text(standing: Standing, threshold: Threshold, when: datetime | None) -> str:
    unit = f" {standing.unit}" if standing.subject != "allowance" else ""  # its title says what is counted
    lines = [
        f"{standing.title}: {standing.used.normalize():f} of {standing.limit.normalize():f}{unit} is used (threshold: {threshold}).",
    ]
    if standing.used < standing.limit and when is not None:
        lines.append(f"At this pace all of it is used by {when:%Y-%m-%d %H:%M} UTC.")
    if standing.end is not None:
        lines.append(f"It resets at {standing.end:%Y-%m-%d %H:%M} UTC.")
    return "\n".join(lines) + "\n"


def _mark_overage(customers: list[Customer], standings: list[Standing]) -> None:
    """Have `in_overage` say whether a soft allowance is gone beyond."""
    beyond = {one.customer.pk for one in standings if one.is_soft_allowance and one.used > one.limit}
    ids = [customer.pk for customer in customers]
    Customer.objects.filter(pk__in=beyond, in_overage=False).update(in_overage=True)
    Customer.objects.filter(pk__in=set(ids) - beyond, in_overage=True).update(in_overage=False)


def send_mails(at: datetime, *, most: int = 100) -> int:
    """Send the e-mails that are due; how many were sent. Whoever takes a message leaves it to nobody else for a while."""
    sent = 0
    for message in OutboxMessage.objects.to_mail(at).order_by("mail_due_at")[:most]:
        taken = OutboxMessage.objects.filter(pk=message.pk, mail_due_at=message.mail_due_at, mailed_at=None)
        if not taken.update(mail_due_at=at + MAIL_LEASE, mail_tries=message.mail_tries + 1):
            continue
        sent += _send(message, at)
    return sent


def _send(message: OutboxMessage, at: datetime) -> bool:
    mail = EmailMessage(
        message.mail_subject, message.mail_text, settings.DEFAULT_FROM_EMAIL, [message.mail_to],
        headers={"Message-ID": f"<{message.pk}@tollgate>"},
    )  # fmt: skip
    this = OutboxMessage.objects.filter(pk=message.pk)
    try:
        mail.send()
    except Exception as error:  # noqa: BLE001  (whatever a mail server says, the others are to be sent)
        tries = message.mail_tries
        due = at + MAIL_RETRY[tries] if tries < len(MAIL_RETRY) else None
        this.update(mail_due_at=due, mail_error=f"{type(error).__name__}: {error}"[:300])
        log.warning("e-mail %s could not be sent: %s", message.pk, error)
        return False
    this.update(mail_due_at=None, mailed_at=at, mail_error="")
    return True

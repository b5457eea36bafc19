"""The ledger: balances, entries that nobody can edit, grants."""

from typing import Any

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

import billing.models.customer
import metering.ids
import pricing.clock
import pricing.fields
from metering.schema import CreateHotTable

# Nobody edits an entry, by whatever way they come. Balances are updated by every call: room for it on each page.
# The trigger that does nothing is needed. Where somebody else has changed the row since the statement began, PostgreSQL checks
# the constraints against what would have become of the old version, and refuses a change that fits the row as it is; only
# where there is a trigger before the update it takes the new version first.
PROTECTION = {
    "postgresql": (
        """create function billing_entries_stand() returns trigger language plpgsql as $$ begin
            raise exception 'entries of the ledger are never edited or deleted' using errcode = 'integrity_constraint_violation';
        end $$""",
        """create trigger billing_entries_stand before update or delete on billing_entries
            for each row execute function billing_entries_stand()""",
        "alter table billing_balances set (fillfactor = 50)",
        """create function billing_balances_anew() returns trigger language plpgsql as $$ begin return new; end $$""",
        """create trigger billing_balances_anew before update on billing_balances
            for each row execute function billing_balances_anew()""",
    ),
    "sqlite": (
        """create trigger billing_entries_stand before update on billing_entries
            begin select raise(abort, 'entries of the ledger are never edited'); end""",
        """create trigger billing_entries_stay before delete on billing_entries
            begin select raise(abort, 'entries of the ledger are never deleted'); end""",
    ),
}


def protect(apps: Any, schema_editor: Any) -> None:
    for statement in PROTECTION[schema_editor.connection.vendor]:
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0002_block_unpriced"),
    ]

    operations = [
        migrations.CreateModel(
            name="Balance",
            fields=[
                (
                    "customer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="balance",
                        serialize=False,
                        to="tollgate_billing.customer",
                    ),
                ),
                (
                    "currency",
                    models.CharField(max_length=3, validators=[billing.models.customer.check_currency]),
                ),
                (
                    "is_hard",
                    models.BooleanField(
                        default=False, help_text="Whether a call that is not covered is refused."
                    ),
                ),
                ("available", pricing.fields.AmountField(default=0)),
                (
                    "held",
                    pricing.fields.AmountField(
                        default=0, help_text="Reserved by calls in flight: the sum of the open holds."
                    ),
                ),
                ("bought", pricing.fields.AmountField(default=0)),
                ("granted", pricing.fields.AmountField(default=0)),
                ("adjusted", pricing.fields.AmountField(default=0)),
                ("consumed", pricing.fields.AmountField(default=0)),
                ("expired", pricing.fields.AmountField(default=0)),
                ("refunded", pricing.fields.AmountField(default=0)),
                ("written_off", pricing.fields.AmountField(default=0)),
                ("receivable", pricing.fields.AmountField(default=0)),
                ("opened_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
            ],
            options={
                "db_table": "billing_balances",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("held__gte", 0)), name="billing_balances_held"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("available__gte", models.F("held"))),
                        name="billing_balances_covered",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("bought__gte", 0),
                            ("expired__gte", 0),
                            ("granted__gte", 0),
                            ("refunded__gte", 0),
                            ("written_off__gte", 0),
                        ),
                        name="billing_balances_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "available",
                                django.db.models.expressions.CombinedExpression(
                                    django.db.models.expressions.CombinedExpression(
                                        django.db.models.expressions.CombinedExpression(
                                            django.db.models.expressions.CombinedExpression(
                                                django.db.models.expressions.CombinedExpression(
                                                    django.db.models.expressions.CombinedExpression(
                                                        django.db.models.expressions.CombinedExpression(
                                                            models.F("bought"), "+", models.F("granted")
                                                        ),
                                                        "+",
                                                        models.F("adjusted"),
                                                    ),
                                                    "-",
                                                    models.F("expired"),
                                                ),
                                                "-",
                                                models.F("refunded"),
                                            ),
                                            "-",
                                            models.F("consumed"),
                                        ),
                                        "+",
                                        models.F("written_off"),
                                    ),
                                    "+",
                                    models.F("receivable"),
                                ),
                            )
                        ),
                        name="billing_balances_add_up",
                    ),
                ],
            },
        ),
        CreateHotTable(
            name="Entry",
            primary_key=("customer_id", "key"),
            replaces="billing_entries_key",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("customer_id", models.UUIDField()),
                (
                    "key",
                    models.CharField(
                        help_text="What it is for: no customer has two entries of one key.", max_length=200
                    ),
                ),
                ("posting_id", models.UUIDField(help_text="What was booked together; events carry it.")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("grant", "Grant"),
                            ("use", "Use"),
                            ("use_returned", "use given back"),
                            ("expiry", "Expiry"),
                            ("refund", "Refund"),
                            ("adjustment", "Adjustment"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "debit",
                    models.CharField(
                        choices=[
                            ("bought", "credits paid for"),
                            ("granted", "credits given"),
                            ("adjustment", "adjustments"),
                            ("available", "available"),
                            ("consumed", "consumed by usage"),
                            ("expired", "expired"),
                            ("refunded", "refunded"),
                            ("written_off", "used beyond a hard limit, not charged"),
                            ("receivable", "used beyond the credits, to be invoiced"),
                        ],
                        max_length=16,
                    ),
                ),
                (
                    "credit",
                    models.CharField(
                        choices=[
                            ("bought", "credits paid for"),
                            ("granted", "credits given"),
                            ("adjustment", "adjustments"),
                            ("available", "available"),
                            ("consumed", "consumed by usage"),
                            ("expired", "expired"),
                            ("refunded", "refunded"),
                            ("written_off", "used beyond a hard limit, not charged"),
                            ("receivable", "used beyond the credits, to be invoiced"),
                        ],
                        max_length=16,
                    ),
                ),
                ("amount", pricing.fields.AmountField()),
                ("currency", models.CharField(max_length=3)),
                ("created_at", models.DateTimeField()),
                ("reason", models.CharField(blank=True, max_length=300)),
                (
                    "actor",
                    models.CharField(
                        blank=True, help_text="Who did it; empty for what calls did.", max_length=150
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "entries",
                "db_table": "billing_entries",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["customer_id", "created_at"], name="billing_entries_by_time")
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("customer_id", "key"), name="billing_entries_key"),
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0)), name="billing_entries_amount"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("debit", models.F("credit")), _negated=True),
                        name="billing_entries_two_accounts",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "credit__in",
                                [
                                    "bought",
                                    "granted",
                                    "adjustment",
                                    "available",
                                    "consumed",
                                    "expired",
                                    "refunded",
                                    "written_off",
                                    "receivable",
                                ],
                            ),
                            (
                                "debit__in",
                                [
                                    "bought",
                                    "granted",
                                    "adjustment",
                                    "available",
                                    "consumed",
                                    "expired",
                                    "refunded",
                                    "written_off",
                                    "receivable",
                                ],
                            ),
                        ),
                        name="billing_entries_accounts",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Grant",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[("paid", "bought"), ("promotional", "given")], default="paid", max_length=12
                    ),
                ),
                ("amount", pricing.fields.AmountField()),
                (
                    "remaining",
                    pricing.fields.AmountField(help_text="As of the last change of the customer's grants."),
                ),
                (
                    "currency",
                    models.CharField(max_length=3, validators=[billing.models.customer.check_currency]),
                ),
                (
                    "priority",
                    models.PositiveSmallIntegerField(default=50, help_text="Lower burns first; 0 to 100."),
                ),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, help_text="From then on it cannot be spent.", null=True),
                ),
                ("reason", models.CharField(blank=True, max_length=300)),
                ("key", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="grants",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_grants",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("remaining__gt", 0)),
                        fields=["expires_at"],
                        name="billing_grants_due",
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("customer", "key"), name="billing_grants_key"),
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0)), name="billing_grants_amount"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("remaining__gte", 0), ("remaining__lte", models.F("amount"))),
                        name="billing_grants_remaining",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("priority__lte", 100)), name="billing_grants_priority"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="GrantUse",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("grant", "Grant"),
                            ("use", "Use"),
                            ("use_returned", "use given back"),
                            ("expiry", "Expiry"),
                            ("refund", "Refund"),
                            ("adjustment", "Adjustment"),
                        ],
                        max_length=16,
                    ),
                ),
                ("amount", pricing.fields.AmountField(help_text="Negative where it came back.")),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "entry",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tollgate_billing.entry",
                    ),
                ),
                (
                    "grant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="uses",
                        to="tollgate_billing.grant",
                    ),
                ),
            ],
            options={
                "db_table": "billing_grant_uses",
                "ordering": ["created_at", "id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount", 0), _negated=True), name="billing_grant_uses_amount"
                    )
                ],
            },
        ),
        migrations.RunPython(protect, migrations.RunPython.noop),
    ]

"""Invoices, their lines and numbers, taxes, and who could not be billed."""

import django.core.validators
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

import billing.models.customer
import metering.ids
import pricing.clock
import pricing.fields


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0009_price_models"),
    ]

    operations = [
        migrations.CreateModel(
            name="InvoiceNumber",
            fields=[
                ("year", models.PositiveIntegerField(primary_key=True, serialize=False)),
                ("last", models.PositiveIntegerField()),
            ],
            options={
                "db_table": "billing_invoice_numbers",
            },
        ),
        migrations.CreateModel(
            name="ParkedBilling",
            fields=[
                (
                    "customer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="parked_billing",
                        serialize=False,
                        to="tollgate_billing.customer",
                    ),
                ),
                ("period_start", models.DateTimeField()),
                ("reason", models.CharField(max_length=500)),
                ("attempts", models.PositiveIntegerField(default=1)),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "parked customer",
                "db_table": "billing_parked",
                "ordering": ["-last_at"],
            },
        ),
        migrations.AddField(
            model_name="customer",
            name="billed_until",
            field=models.DateTimeField(
                blank=True,
                db_index=True,
                editable=False,
                help_text="What came before is on an invoice, or came to nothing.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="customer",
            name="tax_inclusive",
            field=models.BooleanField(default=False, help_text="On: prices hold the tax already."),
        ),
        migrations.AddField(
            model_name="customer",
            name="tax_percent",
            field=pricing.fields.AmountField(
                default=0,
                help_text="Of each line of an invoice, as in 19.",
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.CreateModel(
            name="Invoice",
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
                            ("invoice", "Invoice"),
                            ("credit_note", "credit note"),
                            ("debit_note", "debit note"),
                        ],
                        default="invoice",
                        max_length=12,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "to be paid"),
                            ("paid", "Paid"),
                            ("void", "Void"),
                            ("uncollectible", "Uncollectible"),
                        ],
                        default="open",
                        max_length=14,
                    ),
                ),
                (
                    "number",
                    models.CharField(help_text="Per year, without a gap.", max_length=32, unique=True),
                ),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                (
                    "currency",
                    models.CharField(max_length=3, validators=[billing.models.customer.check_currency]),
                ),
                ("subtotal", pricing.fields.AmountField(help_text="Of all lines, without taxes.")),
                ("tax", pricing.fields.AmountField()),
                ("total", pricing.fields.AmountField(help_text="What is to be paid.")),
                (
                    "carried",
                    pricing.fields.AmountField(
                        help_text="What is less than the smallest coin, or below nothing: the next invoice begins with it."
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(default=pricing.clock.now, help_text="When it was finalised."),
                ),
                ("due_at", models.DateTimeField()),
                (
                    "closed_at",
                    models.DateTimeField(blank=True, help_text="Paid, void or given up.", null=True),
                ),
                (
                    "reason",
                    models.CharField(
                        blank=True, help_text="Of a note, of voiding, of giving up.", max_length=300
                    ),
                ),
                (
                    "seen",
                    models.JSONField(
                        default=dict,
                        help_text="What daily usage came to when it was made, by the start of a period: by that later invoices see what came late.",
                    ),
                ),
                (
                    "overrides",
                    models.JSONField(
                        default=dict,
                        help_text="What the customer got instead of what its plan said, by feature: what comes late is priced by it.",
                    ),
                ),
                (
                    "corrects",
                    models.ForeignKey(
                        blank=True,
                        help_text="Of a note.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="notes",
                        to="tollgate_billing.invoice",
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="invoices",
                        to="tollgate_billing.customer",
                    ),
                ),
                (
                    "plan_version",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="tollgate_billing.planversion",
                        verbose_name="plan",
                    ),
                ),
            ],
            options={
                "db_table": "billing_invoices",
                "ordering": ["-created_at", "-id"],
            },
        ),
        migrations.CreateModel(
            name="InvoiceLine",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("position", models.PositiveIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("base_fee", "base fee"),
                            ("feature", "priced by the plan"),
                            ("usage", "priced by the price book"),
                            ("true_up", "minimum or maximum"),
                            ("late", "of an earlier period"),
                            ("credits", "paid with credits"),
                            ("written_off", "beyond a hard limit, not charged"),
                            ("carried", "carried over"),
                            ("note", "Note"),
                        ],
                        max_length=12,
                    ),
                ),
                ("feature", models.CharField(blank=True, max_length=64)),
                ("description", models.CharField(max_length=300)),
                ("quantity", pricing.fields.AmountField(blank=True, null=True)),
                ("unit_price", pricing.fields.AmountField(blank=True, null=True)),
                (
                    "exact",
                    pricing.fields.AmountField(
                        help_text="To 12 places, before it is rounded to the smallest coin."
                    ),
                ),
                (
                    "amount",
                    pricing.fields.AmountField(
                        help_text="In the smallest coin, without tax. What rounding leaves goes to the next line."
                    ),
                ),
                ("tax_percent", pricing.fields.AmountField()),
                ("tax", pricing.fields.AmountField()),
                ("period_start", models.DateTimeField()),
                ("period_end", models.DateTimeField()),
                ("source", models.JSONField(default=dict)),
                (
                    "invoice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="lines",
                        to="tollgate_billing.invoice",
                    ),
                ),
            ],
            options={
                "db_table": "billing_invoice_lines",
                "ordering": ["position"],
            },
        ),
        migrations.AddIndex(
            model_name="invoice",
            index=models.Index(fields=["customer", "period_start"], name="billing_invoices_periods"),
        ),
        migrations.AddIndex(
            model_name="invoice",
            index=models.Index(fields=["created_at", "id"], name="billing_invoices_newest"),
        ),
        migrations.AddIndex(
            model_name="invoice",
            index=models.Index(fields=["state", "due_at"], name="billing_invoices_states"),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.UniqueConstraint(
                condition=models.Q(("kind", "invoice"), models.Q(("state", "void"), _negated=True)),
                fields=("customer", "period_start"),
                name="billing_invoices_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(("period_end__gt", models.F("period_start"))),
                name="billing_invoices_period",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["open", "paid", "void", "uncollectible"])),
                name="billing_invoices_state",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("closed_at", None), ("state", "open")),
                    models.Q(("state", "open"), _negated=True),
                    _connector="OR",
                ),
                name="billing_invoices_closed",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "total",
                        django.db.models.expressions.CombinedExpression(
                            models.F("subtotal"), "+", models.F("tax")
                        ),
                    )
                ),
                name="billing_invoices_add_up",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoice",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("corrects", None), ("kind", "invoice")),
                    ("kind__in", ["credit_note", "debit_note"]),
                    _connector="OR",
                ),
                name="billing_invoices_notes",
            ),
        ),
        migrations.AddConstraint(
            model_name="invoiceline",
            constraint=models.UniqueConstraint(
                fields=("invoice", "position"), name="billing_invoice_lines_position"
            ),
        ),
    ]

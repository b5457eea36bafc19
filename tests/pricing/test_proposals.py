"""From a difference to a decision: who may change a price, and that nobody else can, whatever a catalogue says."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.urls import reverse

from pricing.catalog import import_prices, load_rate_card
from pricing.models import PriceBook, PriceProposal, PriceSync, Rate, SyncPolicy
from pricing.proposals import AlreadyDecided, Inapplicable, OtherCurrency, approve, reject, roll_back, sync
from pricing.rating import rate_usage
from pricing.usage import Usage

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
SAID = {
    "input_cost_per_token": 0.000003,
    "output_cost_per_token": 0.000015,
}  # of claude-sonnet-4-5, as genai-prices has it


@pytest.fixture
def book() -> PriceBook:
    return PriceBook.objects.create(slug="cost", name="Cost")


def rate(
    book: PriceBook,
    bucket: str,
    price: str,
    *,
    model: str = "claude-sonnet-4-5",
    since: datetime = NOW - timedelta(days=90),
) -> Rate:
    found = Rate(
        book=book,
        provider="anthropic",
        model=model,
        bucket=bucket,
        price=Decimal(price),
        per=1_000_000,
        effective_from=since,
    )
    found.save()
    return found


def price_map(tmp_path: Path, entries: dict[str, Any] | None = None, **sonnet: Any) -> str:
    path = tmp_path / "map.json"
    path.write_text(
        json.dumps(
            {"claude-sonnet-4-5": {"litellm_provider": "anthropic", **SAID, **sonnet}, **(entries or {})}
        )
    )
    return str(path)


def proposal(bucket: str) -> PriceProposal:
    return PriceProposal.objects.get(model="claude-sonnet-4-5", bucket=bucket, status="open", conditions={})


def cost(at: datetime, model: str = "claude-sonnet-4-5") -> Decimal | None:
    """Of a million tokens read."""
    usage = Usage({"in_uncached": 1_000_000}, "anthropic", model_served=model)
    return rate_usage(load_rate_card(), usage, book="cost", at=at).total


# Finding


def test_a_comparison_keeps_what_differs_and_changes_no_price(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    run = sync(NOW, price_map=price_map(tmp_path))
    found = proposal("in_uncached")
    assert (found.kind, found.price, found.old_price, found.change_percent) == (
        "changed",
        3,
        Decimal("2.9"),
        Decimal("3.448275862069"),  # 0.1 / 2.9
    )
    assert {source: price for source, _, price in found.statements} == {"genai-prices": "3", "litellm": "3"}
    assert set(run.sources) == {"genai-prices", "litellm"}
    assert cost(LATER) == Decimal("2.9")


def test_a_second_comparison_opens_nothing_again(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    where = price_map(tmp_path)
    sync(NOW, price_map=where)
    before = list(PriceProposal.objects.order_by("pk").values_list("pk", "status"))
    again = sync(LATER, price_map=where)
    assert (again.opened, again.outdated) == (0, 0)
    assert list(PriceProposal.objects.order_by("pk").values_list("pk", "status")) == before
    assert proposal("in_uncached").last_seen == LATER


def test_a_difference_that_is_gone_is_outdated(book: PriceBook, tmp_path: Path) -> None:
    known = rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    known.supersede(Decimal(3), NOW + timedelta(hours=1))
    assert sync(LATER, price_map=price_map(tmp_path)).outdated == 1
    with pytest.raises(PriceProposal.DoesNotExist):
        proposal("in_uncached")


def test_a_catalogue_that_cannot_be_read_outdates_nothing(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "3")
    sync(NOW, price_map=price_map(tmp_path, input_cost_per_token=0.0000035))
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    run = sync(LATER, price_map=str(broken))
    assert run.outdated == 0
    assert "no JSON" in run.problems[0]
    assert proposal("in_uncached").kind == "disagreement"


# Deciding


def test_an_approved_price_holds_from_now_on_and_never_before(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    result = approve(proposal("in_uncached"), by="ada", now=NOW, reason="checked")
    assert result is not None
    assert (cost(NOW - timedelta(microseconds=1)), cost(NOW)) == (Decimal("2.9"), 3)
    decided = PriceProposal.objects.get(status="approved")
    assert (decided.decided_by, decided.reason, decided.result) == ("ada", "checked", result)


def test_an_approved_price_can_be_scheduled(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    where = price_map(tmp_path)
    sync(NOW, price_map=where)
    approve(proposal("in_uncached"), by="ada", now=NOW, at=LATER)
    assert (cost(LATER - timedelta(microseconds=1)), cost(LATER)) == (Decimal("2.9"), 3)
    assert (
        sync(NOW + timedelta(hours=1), price_map=where).opened == 0
    )  # what is dated already is not proposed again


def test_no_price_begins_in_the_past(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    with pytest.raises(Inapplicable, match="past"):
        approve(proposal("in_uncached"), by="ada", now=NOW, at=NOW - timedelta(seconds=1))
    assert proposal("in_uncached").status == "open"


def test_only_one_of_two_decides(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    first, second = proposal("in_uncached"), proposal("in_uncached")
    approve(first, by="ada", now=NOW)
    with pytest.raises(AlreadyDecided):
        reject(second, by="bob", now=NOW)
    with pytest.raises(AlreadyDecided):
        approve(second, by="bob", now=NOW)
    assert Rate.objects.filter(bucket="in_uncached").count() == 2


def test_a_proposal_is_against_the_rate_that_it_was_found_with(book: PriceBook, tmp_path: Path) -> None:
    known = rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    known.supersede(Decimal("2.5"), NOW + timedelta(minutes=1))
    with pytest.raises(Inapplicable, match="not in force any more"):
        approve(proposal("in_uncached"), by="ada", now=NOW + timedelta(minutes=2))
    assert cost(LATER) == Decimal("2.5")
    assert proposal("in_uncached").status == "open"


def test_a_disagreement_is_decided_by_naming_a_price(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path, input_cost_per_token=0.0000035))
    found = proposal("in_uncached")
    with pytest.raises(Inapplicable, match="say which"):
        approve(found, by="ada", now=NOW)
    approve(found, by="ada", now=NOW, price=found.prices["genai-prices"])
    assert cost(NOW) == 3


def test_a_rejected_price_is_not_proposed_again_but_another_is(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "out_visible", "14")
    sync(NOW, price_map=price_map(tmp_path))
    reject(proposal("out_visible"), by="ada", now=NOW)
    sync(LATER, price_map=price_map(tmp_path))
    with pytest.raises(PriceProposal.DoesNotExist):
        proposal("out_visible")
    sync(LATER, price_map=price_map(tmp_path, output_cost_per_token=0.000016))
    assert proposal("out_visible").kind == "disagreement"


def test_what_a_person_rejected_is_not_applied_by_policy_after_a_night_of_disagreement(
    book: PriceBook, tmp_path: Path
) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    reject(proposal("in_uncached"), by="ada", now=NOW)
    SyncPolicy.objects.create(auto_approve=True)
    sync(LATER, price_map=price_map(tmp_path, input_cost_per_token=0.0000035))
    assert proposal("in_uncached").kind == "disagreement"
    run = sync(LATER + timedelta(days=1), price_map=price_map(tmp_path))
    assert run.applied == 0
    assert cost(LATER + timedelta(days=2)) == Decimal("2.9")


def test_a_book_in_another_currency_is_compared_with_nothing(tmp_path: Path) -> None:
    euros = PriceBook.objects.create(slug="cost", name="Cost", currency="EUR")
    rate(euros, "in_uncached", "2.9")
    with pytest.raises(OtherCurrency, match="in USD, the book cost is in EUR"):
        sync(NOW, price_map=price_map(tmp_path))
    with pytest.raises(CommandError, match="EUR"):
        call_command("sync_prices", "--price-map", "")
    assert not PriceProposal.objects.exists()


def test_a_proposal_against_a_rate_that_was_corrected_since_is_not_applied(
    book: PriceBook, tmp_path: Path
) -> None:
    known = rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    known.correct(Decimal("2.95"), NOW - timedelta(days=90), reason="as the invoice says")
    with pytest.raises(Inapplicable, match="not in force any more"):
        approve(proposal("in_uncached"), by="ada", now=LATER)
    assert cost(LATER) == Decimal("2.95")


def test_a_new_model_is_priced_once_it_is_approved(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "1", model="some-other")
    sync(NOW, price_map=price_map(tmp_path))
    assert cost(NOW) is None
    approve(
        PriceProposal.objects.get(model="claude-sonnet-4-5", bucket="in_uncached", kind="new", conditions={}),
        by="ada",
        now=NOW,
    )
    assert cost(NOW) == 3


def test_a_withdrawn_model_ends_when_it_is_approved(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "1", model="never-heard-of")
    sync(NOW, price_map=price_map(tmp_path))
    found = PriceProposal.objects.get(kind="withdrawn")
    assert approve(found, by="ada", now=NOW, at=LATER) is None
    assert (cost(LATER - timedelta(microseconds=1), "never-heard-of"), cost(LATER, "never-heard-of")) == (
        1,
        None,
    )


def test_what_was_approved_can_be_rolled_back_from_now_on(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    where = price_map(tmp_path)
    sync(NOW, price_map=where)
    found = proposal("in_uncached")
    approve(found, by="ada", now=NOW)
    roll_back(found, by="bob", now=LATER, reason="not ours yet")
    assert [cost(at) for at in (NOW, LATER - timedelta(microseconds=1), LATER)] == [3, 3, Decimal("2.9")]
    with pytest.raises(AlreadyDecided):
        roll_back(found, by="bob", now=LATER)
    assert sync(LATER + timedelta(days=1), price_map=where).opened == 0  # taken back is turned down


def test_what_was_scheduled_can_be_rolled_back_before_it_begins(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    found = proposal("in_uncached")
    approve(found, by="ada", now=NOW, at=LATER)
    roll_back(found, by="ada", now=NOW)
    assert cost(LATER + timedelta(seconds=1)) == Decimal("2.9")


def test_a_new_price_that_is_rolled_back_leaves_the_model_unpriced(book: PriceBook, tmp_path: Path) -> None:
    rate(book, "in_uncached", "1", model="some-other")
    sync(NOW, price_map=price_map(tmp_path))
    found = PriceProposal.objects.get(
        model="claude-sonnet-4-5", bucket="in_uncached", kind="new", conditions={}
    )
    approve(found, by="ada", now=NOW)
    roll_back(found, by="ada", now=LATER)
    assert (cost(NOW), cost(LATER)) == (3, None)


# The policy


def test_the_policy_applies_what_two_catalogues_agree_on(book: PriceBook, tmp_path: Path) -> None:
    SyncPolicy.objects.create(auto_approve=True)
    rate(book, "in_uncached", "2.9")
    rate(book, "out_visible", "10")
    run = sync(NOW, price_map=price_map(tmp_path))
    # 2.9 → 3 is 3.4 %; 10 → 15 is 50 %
    assert run.applied == 1
    assert cost(NOW) == 3
    assert proposal("out_visible").guard == "a change of more than 10 % within the last 30 days"
    assert PriceProposal.objects.get(status="approved").decided_by == "policy"


def test_small_steps_by_night_do_not_walk_past_the_guard(book: PriceBook) -> None:
    SyncPolicy.objects.create(auto_approve=True)
    rate(book, "in_uncached", "2.6")
    known = Rate.objects.get()
    for day in range(1, 4):  # each below 10 %, as if approved night after night
        known = known.supersede(known.price * Decimal("1.04"), NOW - timedelta(days=4 - day))
    # 2.6 × 1.04³ = 2.9246464; the catalogues say 3, which is 2.6 % more, but 15.4 % above the price of a month ago
    sync(NOW, price_map="")
    assert cost(LATER) == known.price


POISON: dict[str, Any] = {
    "a thousandth": {"input_cost_per_token": 0.000000003},
    "a thousandfold": {"input_cost_per_token": 0.003},
    "nothing": {"input_cost_per_token": 0},
    "negative": {"input_cost_per_token": -0.000003},
    "a little less": {"input_cost_per_token": 0.0000029},
    "a little more": {"input_cost_per_token": 0.0000031},
    "text": {"input_cost_per_token": "0.0000000001"},
    "true": {"input_cost_per_token": True},
    "nested": {"input_cost_per_token": {"price": 0}},
    "null": {"input_cost_per_token": None, "output_cost_per_token": None},
    "batch for nothing": {"input_cost_per_token_batches": 0},
    "a tier for nothing": {"input_cost_per_token_above_1k_tokens": 0},
    "another cache": {"cache_read_input_token_cost": 0, "cache_creation_input_token_cost": 0},
    "another provider": {"litellm_provider": "openai"},
    "a free search": {"input_cost_per_query": 0, "input_cost_per_request": 0},
    "free reasoning": {"output_cost_per_reasoning_token": 0},
}


@pytest.mark.parametrize("takes_new", [False, True])
def test_a_poisoned_catalogue_cannot_change_a_bill(book: PriceBook, tmp_path: Path, takes_new: bool) -> None:
    SyncPolicy.objects.create(auto_approve=True, takes_new=takes_new, change_max=Decimal(100))
    import_prices("cost")
    sync(NOW, price_map=price_map(tmp_path))  # takes over what the honest catalogues agree on
    buckets = {
        "in_uncached": 5_000, "in_cache_read": 7, "in_cache_write_unknown": 5, "out_visible": 11, "out_reasoning": 3,
        "web_search": 1,
    }  # fmt: skip
    usages = [
        Usage(buckets, "anthropic", model_served="claude-sonnet-4-5", batch=batch) for batch in (False, True)
    ]

    def charges() -> list[Decimal | None]:
        card, at = load_rate_card(), NOW + timedelta(days=90)
        return [rate_usage(card, usage, book="cost", at=at).total for usage in usages]

    before, night = charges(), NOW
    assert None not in before
    for name, poison in POISON.items():
        for _ in range(2):
            night += timedelta(days=1)
            sync(night, price_map=price_map(tmp_path, **poison))
        assert charges() == before, name


# The edges


def test_the_command_says_what_it_found(
    book: PriceBook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate(book, "in_uncached", "2.9")
    call_command("sync_prices", "--price-map", price_map(tmp_path))
    said = capsys.readouterr().out
    assert "changed: 1 open" in said
    assert (
        "anthropic/claude-sonnet-4-5 in_uncached: 2.9 → 3 per 1,000,000 (+3.45 %); genai-prices 3; litellm 3"
        in said
    )


def test_the_command_goes_on_when_one_catalogue_cannot_be_read(
    book: PriceBook, capsys: pytest.CaptureFixture[str]
) -> None:
    rate(book, "in_uncached", "2.9")
    call_command("sync_prices", "--price-map", "/nowhere/map.json")
    said = capsys.readouterr()
    assert "/nowhere/map.json" in said.err
    assert "only genai-prices says so" in said.out


def test_operators_decide_in_the_admin(book: PriceBook, tmp_path: Path, client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path, input_cost_per_token=0.0000035))
    found = proposal("in_uncached")
    page = reverse("admin:tollgate_pricing_priceproposal_changelist")
    assert "disagreement" in client.get(page, follow=True).content.decode()
    chosen = {"action": "approve", "_selected_action": [found.pk]}
    asked = client.post(page, chosen).content.decode()
    assert "whose price holds where the catalogues disagree" in asked
    client.post(
        page,
        {
            **chosen,
            "decided": "yes",
            "catalogue": "litellm",
            "reason": "invoice of November",
            "effective_from": "2099-01-01 00:00",
        },
    )
    found.refresh_from_db()
    assert (found.status, found.decided_by, found.reason) == ("approved", "ada", "invoice of November")
    assert cost(datetime(2099, 1, 1, tzinfo=UTC)) == Decimal("3.5")
    client.post(page, {"action": "roll_back", "_selected_action": [found.pk], "decided": "yes", "reason": ""})
    found.refresh_from_db()
    assert found.status == "rolled_back"


def test_the_pages_of_the_admin_open(book: PriceBook, tmp_path: Path, client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    rate(book, "in_uncached", "2.9")
    sync(NOW, price_map=price_map(tmp_path))
    SyncPolicy.objects.create()
    for model, row in (
        ("priceproposal", proposal("in_uncached").pk),
        ("pricesync", PriceSync.objects.get().pk),
        ("syncpolicy", 1),
    ):
        for page in (
            reverse(f"admin:tollgate_pricing_{model}_changelist"),
            reverse(f"admin:tollgate_pricing_{model}_change", args=[row]),
        ):
            assert client.get(page, follow=True).status_code == 200


def test_a_policy_beyond_its_bounds_is_refused(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    page = reverse("admin:tollgate_pricing_syncpolicy_add")
    for percent in ("-1", "100.5", "NaN"):
        client.post(page, {"change_max": percent})
    assert not SyncPolicy.objects.exists()


def test_no_catalogue_at_all_is_an_error() -> None:
    with pytest.raises(CommandError):
        call_command("sync_prices", "--unknown")

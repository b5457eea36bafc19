"""Every shipped price equals the catalogue's, to the last digit; what differs is listed here with its reason."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data
from genai_prices.types import ModelInfo, Provider, TieredPrices, Usage as OracleUsage

from pricing.catalog import PER_UNITS, PriceEntry, read_price_files
from pricing.pricelist import Rate, RateCard
from pricing.rating import rate_usage
from pricing.usage import Usage

ORACLE: dict[str, Provider] = {provider.id: provider for provider in data.providers}
FILES = read_price_files()
PROVIDERS = ("openai", "anthropic", "google")
MODELS = sorted({(entry.provider, entry.model) for entry in FILES.entries if entry.provider in PROVIDERS})
INSTANTS = [
    datetime(2025, 6, 1, tzinfo=UTC),
    datetime(2026, 4, 1, tzinfo=UTC),
    datetime(2026, 11, 20, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
]

# Ours, where the catalogue has no figure of its own for the bucket.
BEYOND_THE_CATALOGUE = {
    (
        "gpt-6.1-terra",
        "in_cache_write_12h",
    ): "the catalogue's comment gives the price of 12 hours, its data only that of 30 minutes",
    ("gpt-4o-mini-tts", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-2.5-flash-lite-preview-tts", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-2.5-flash-tts", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-2.5-pro-tts", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-3.1-flash-tts-preview", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-3.8-flash-tts", "out_visible.audio"): "all output of a speech model is audio",
    ("gemini-3.8-flash-lite-tts", "out_visible.audio"): "all output of a speech model is audio",
}
# Not shipped: beginnings of the catalogue's names, and why.
NOT_SHIPPED: dict[str, dict[tuple[str, ...], str]] = {
    "openai": {
        ("ada", "babbage", "curie", "davinci", "text-davinci", "gpt-3.5-0301", "gpt-3.5-turbo-0613", "gpt-3.5-turbo-16k",
         "gpt-4-32k", "gpt-4-vision-preview", "gpt-4.5-preview"): "retired",
        ("ft:", "gpt-4o-mini-2024-07-18.ft-"): "fine-tuned models have names of their own: rates an operator adds",
        ("gpt-4o:extended", "gpt-5-image", "gpt-5.4-image-2", "gpt-oss-"): "names of resellers and hosts, not of this API",
        ("gpt-live-", "gpt-realtime-translate", "gpt-realtime-whisper", "gpt-transcribe", "whisper-1", "tts-1"): "billed by time or character",
        ("moderation",): "free, without a price in the catalogue",
    },
    "anthropic": {("claude-2", "claude-v1"): "retired"},
    "google": {
        ("claude-",): "Anthropic's models on Vertex AI",
        ("gemma-",): "open models, free or by other hosts",
        ("gemini-1.", "gemini-pro", "gemini-flash-1.5"): "retired",
    },
}  # fmt: skip


def oracle_key(provider: str, bucket: str) -> str:
    """The catalogue's name of a bucket's price."""
    if bucket in {"web_search", "grounding_query"}:
        return "web_searches_kcount"
    if bucket == "file_search":
        return "storage_searches_kcount"
    kind, _, modality = bucket.partition(".")
    infix = f"_{modality}" if modality else ""
    return {
        "in_uncached": f"input{infix}_mtok",
        "in_cache_read": f"cache{infix}_read_mtok",
        "out_visible": f"output{infix}_mtok",
        "in_cache_write_unknown": "cache_write_mtok",
        "in_cache_write_5m": "cache_write_mtok",  # Anthropic's default time to live
        "in_cache_write_1h": "cache_write_1h_mtok",
    }[kind]


def oracle_model(provider: str, name: str) -> ModelInfo:
    found = ORACLE[provider].find_model(name)
    assert found is not None
    return found


def oracle_prices(provider: str, name: str, at: datetime) -> dict[tuple[str, int], Decimal]:
    """(price key, tokens above which it holds) -> price, as the catalogue has it at an instant."""
    prices: dict[tuple[str, int], Decimal] = {}
    for key, value in vars(oracle_model(provider, name).get_prices(at)).items():
        if isinstance(value, TieredPrices):
            prices[key, 0] = value.base
            prices.update({(key, tier.start): tier.price for tier in value.tiers})
        elif value is not None:
            prices[key, 0] = value
    return prices


def shipped_at(provider: str, name: str, at: datetime) -> list[PriceEntry]:
    return [
        entry
        for entry in FILES.entries
        if (entry.provider, entry.model) == (provider, name)
        and entry.effective_from <= at
        and (entry.effective_to is None or at < entry.effective_to)
    ]


@pytest.mark.parametrize(("provider", "name"), MODELS)
def test_a_model_has_the_catalogues_prices_all_of_them_and_no_other(provider: str, name: str) -> None:
    changes = {entry.effective_from for entry in FILES.entries if entry.model == name}
    for at in {*INSTANTS, *changes, *(change - timedelta(seconds=1) for change in changes)}:
        if at < datetime(2020, 1, 1, tzinfo=UTC):
            continue
        shipped = {
            (oracle_key(provider, entry.bucket), entry.input_above): entry.price
            for entry in shipped_at(provider, name, at)
            if (name, entry.bucket) not in BEYOND_THE_CATALOGUE
        }
        assert shipped == oracle_prices(provider, name, at), at


def test_every_price_beyond_the_catalogue_is_shipped() -> None:
    assert set(BEYOND_THE_CATALOGUE) <= {(entry.model, entry.bucket) for entry in FILES.entries}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_model_of_the_catalogue_is_shipped_or_left_out_for_a_reason(provider: str) -> None:
    left_out = tuple(prefix for prefixes in NOT_SHIPPED[provider] for prefix in prefixes)
    shipped = {oracle_model(provider, name).id for owner, name in MODELS if owner == provider}
    expected = {
        model.id
        for model in ORACLE[provider].models
        if not model.deprecated and not model.id.startswith(left_out)
    }
    assert shipped == expected


@pytest.mark.parametrize(
    ("provider", "alias", "model"), [(*key, model) for key, model in sorted(FILES.aliases.items())]
)
def test_an_alias_names_the_model_that_the_catalogue_finds(provider: str, alias: str, model: str) -> None:
    assert (provider, model) in MODELS
    assert (provider, alias) not in MODELS
    names = {alias.replace("{date}", day) for day in ("20260105", "2026-01-05")}
    assert oracle_model(provider, model) in [ORACLE[provider].find_model(name) for name in names]


def test_prices_say_where_they_come_from() -> None:
    assert all(entry.source for entry in FILES.entries)
    assert all(date(2026, 1, 1) <= entry.source_date <= date(2026, 12, 31) for entry in FILES.entries)


# Whole calls, priced by both.


def shipped_card() -> RateCard:
    rates = [
        Rate(
            id=number,
            book="cost",
            **{name: getattr(entry, name) for name in Rate.__struct_fields__ if hasattr(entry, name)},
        )
        for number, entry in enumerate(FILES.entries)
    ]
    return RateCard.compile(rates, FILES.aliases, 1)


CARD = shipped_card()
NOT_TEXT = ("-tts", "-image", "-audio", "-realtime", "-transcribe", "embedding", "chatgpt-image")
TEXT_MODELS = [(provider, name) for provider, name in MODELS if not any(part in name for part in NOT_TEXT)]


@pytest.mark.parametrize("tokens_read", [1_200, 100_000, 100_001, 200_001, 272_000, 272_001])
@pytest.mark.parametrize(("provider", "name"), TEXT_MODELS)
def test_a_call_costs_what_the_catalogue_says(provider: str, name: str, tokens_read: int) -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    reported: dict[str, Any] = {"input_tokens": tokens_read, "output_tokens": 300, "cache_read_tokens": 1_024}
    usage = Usage(
        buckets={
            "in_uncached": tokens_read - 1_024,
            "in_cache_read": 1_024,
            "out_visible": 108,
            "out_reasoning": 192,
        },
        provider=provider,
        model_served=name,
    )
    expected = oracle_model(provider, name).calc_price(
        OracleUsage(**reported), ORACLE[provider], genai_request_timestamp=at
    )
    charge = rate_usage(CARD, usage, book="cost", at=at)
    assert (charge.status, charge.amount_input, charge.amount_output) == (
        "priced",
        expected.input_price,
        expected.output_price,
    )


@pytest.mark.parametrize(("provider", "name"), [pair for pair in TEXT_MODELS if pair[0] == "anthropic"])
def test_a_call_that_writes_the_cache_costs_what_the_catalogue_says(provider: str, name: str) -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    reported: dict[str, Any] = {
        "input_tokens": 1_000,
        "output_tokens": 7,
        "cache_write_tokens": 900,
        "cache_write_1h_tokens": 300,
    }
    usage = Usage(
        buckets={
            "in_uncached": 100,
            "in_cache_write_5m": 600,
            "in_cache_write_1h": 300,
            "out_visible": 7,
            "web_search": 2,
        },
        provider=provider,
        model_served=name,
    )
    expected = oracle_model(provider, name).calc_price(
        OracleUsage(**reported), ORACLE[provider], genai_request_timestamp=at
    )
    charge = rate_usage(CARD, usage, book="cost", at=at)
    searches = sum(line.amount for line in charge.lines if line.bucket == "web_search")
    per_search = vars(oracle_model(provider, name).get_prices(at)).get("web_searches_kcount")
    assert charge.amount_input == expected.input_price
    assert charge.amount_output == expected.output_price
    assert searches == (2 * per_search / PER_UNITS if per_search else 0)


def test_prices_known_by_heart() -> None:
    """gpt-4o with a cache: 1,200 read of which 1,024 cached, 300 written."""
    usage = Usage(
        buckets={"in_uncached": 176, "in_cache_read": 1024, "out_visible": 300},
        provider="openai",
        model_served="gpt-4o-2024-08-06",
    )
    charge = rate_usage(CARD, usage, book="cost", at=datetime(2026, 11, 20, tzinfo=UTC))
    assert (
        charge.total
        == (176 * Decimal("2.50") + 1024 * Decimal("1.25") + 300 * Decimal("10.00")) / 1_000_000
        == Decimal("0.00472")
    )


def test_twelve_hours_of_cache_have_a_price_of_their_own_where_they_are_sold() -> None:
    usage = Usage(
        buckets={"in_cache_write_30m": 64, "in_cache_write_12h": 10},
        provider="openai",
        model_served="gpt-6.1-terra",
    )
    charge = rate_usage(CARD, usage, book="cost", at=datetime(2026, 11, 20, tzinfo=UTC))
    assert charge.total == (64 * Decimal("1.25") + 10 * Decimal("2.50")) / 1_000_000


@pytest.mark.parametrize(
    ("name", "read", "written"), [("demo-small", "0.50", "1.50"), ("demo-large", "5", "15")]
)
def test_the_demo_models_have_prices(name: str, read: str, written: str) -> None:
    usage = Usage(buckets={"in_uncached": 11, "out_visible": 13}, provider="demo", model_served=name)
    charge = rate_usage(CARD, usage, book="cost", at=datetime(2026, 11, 20, tzinfo=UTC))
    assert charge.total == (11 * Decimal(read) + 13 * Decimal(written)) / 1_000_000


def test_the_demo_embeddings_cost_what_they_read() -> None:
    usage = Usage(buckets={"in_uncached": 11}, provider="demo", model_served="demo-embed")
    assert rate_usage(CARD, usage, book="cost", at=INSTANTS[2]).total == 11 * Decimal("0.02") / 1_000_000

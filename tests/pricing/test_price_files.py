"""Every shipped price equals the catalogue's, to the last digit; what differs is listed here with its reason."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from genai_prices import data
from genai_prices.types import ModelInfo, Provider, TieredPrices, Usage as OracleUsage

from pricing.catalog import PER_UNITS, read_price_files
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

# The kinds of calls that have prices of their own: ours, and what the catalogue calls the same. It knows no regions.
KINDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "ordinary": ({}, {}),
    "batch": ({"batch": True}, {"processing": "batch"}),
    "flex": ({"service_tier": "flex"}, {"service_tier": "flex"}),
    "priority": ({"service_tier": "priority"}, {"service_tier": "priority"}),
    "fast tier": ({"service_tier": "fast"}, {"service_tier": "fast"}),
    "fast": ({"speed": "fast"}, {"speed": "fast"}),
    "us": ({"region": "us"}, {}),
    "batch in us": ({"batch": True, "region": "us"}, {"processing": "batch"}),
    "fast in us": ({"speed": "fast", "region": "us"}, {"speed": "fast"}),
    "flex in us": ({"service_tier": "flex", "region": "us"}, {"service_tier": "flex"}),
}
# Anthropic, from Opus 4.6 on: 1.1 times all prices of tokens where the answer says `us` (its page, data residency).
MORE_IN_US = (
    "claude-fable-", "claude-haiku-5", "claude-mythos-", "claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8",
    "claude-opus-5", "claude-sonnet-4-6", "claude-sonnet-5",
)  # fmt: skip
# In the comments of the catalogue of 2026-11-10 and not in its data: factors on the prices of input and output.
IN_COMMENTS: dict[str, dict[str, str]] = {
    "gemini-3.5-flash": {"batch": "0.5", "flex": "0.5"},
    "gemini-3.5-flash-lite": {"flex": "0.5"},
    "gemini-3.6-flash": {"flex": "0.5"},
    "gemini-3.7-flash": {"batch": "0.5", "flex": "0.5", "priority": "1.8"},
    "gemini-3.8-flash": {"flex": "0.5", "priority": "1.8"},
    "gemini-4-argon": {"flex": "0.5", "priority": "1.8"},
}
COMMENTED = datetime(2026, 11, 10, tzinfo=UTC)

# Ours, where the catalogue has no figure of its own for the bucket.
BEYOND_THE_CATALOGUE = {
    (
        "gpt-6.1-terra",
        "in_cache_write_12h",
    ): "the catalogue's comment gives the price of 12 hours and the factors of tiers and batches, its data only 30 minutes",
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


def oracle_prices(provider: str, name: str, kind: str, at: datetime, tokens: int) -> dict[str, Decimal]:
    """Price key -> price of a call of a kind that reads so many tokens at an instant, as the catalogue has it."""
    ours, theirs = KINDS[kind]
    prices: dict[str, Decimal] = {}
    for key, value in vars(oracle_model(provider, name).get_prices(at, theirs or None)).items():
        if isinstance(value, TieredPrices):
            passed = [tier.price for tier in value.tiers if tokens > tier.start]
            prices[key] = passed[-1] if passed else value.base
        elif value is not None:
            prices[key] = value
    factor = (
        Decimal(IN_COMMENTS.get(name, {}).get(kind.removesuffix(" in us"), "1")) if at >= COMMENTED else 1
    )
    for key in ("input_mtok", "output_mtok"):
        if key in prices:
            prices[key] *= factor
    if "region" in ours and name.startswith(MORE_IN_US):
        prices = {
            key: price * Decimal("1.1") if key.endswith("_mtok") else price for key, price in prices.items()
        }
    return prices


def shipped_prices(provider: str, name: str, kind: str, at: datetime, tokens: int) -> dict[str, Decimal]:
    """The same, as our rates have it."""
    usage = Usage({"in_uncached": tokens}, provider, model_served=name, **KINDS[kind][0])
    tariff = CARD.tariff_for("cost", provider, name, at)
    assert tariff is not None
    own = tariff.prices_of(usage, at).for_input(tokens).own[0]
    per = {entry.bucket: entry.per for entry in FILES.entries}
    return {
        oracle_key(provider, bucket): price.unit_price * per[bucket]
        for bucket, price in own.items()
        if (name, bucket) not in BEYOND_THE_CATALOGUE
    }


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


@pytest.mark.parametrize(("provider", "name"), MODELS)
def test_a_model_has_the_catalogues_prices_all_of_them_and_no_other(provider: str, name: str) -> None:
    entries = [entry for entry in FILES.entries if (entry.provider, entry.model) == (provider, name)]
    changes = {entry.effective_from for entry in entries}
    thresholds = {entry.input_above for entry in entries} | {0}
    probes = sorted({*thresholds, *(threshold + 1 for threshold in thresholds)})
    for at in {*INSTANTS, *changes, *(change - timedelta(seconds=1) for change in changes)}:
        if at < datetime(2020, 1, 1, tzinfo=UTC):
            continue
        for kind, tokens in product(KINDS, probes):
            shipped = shipped_prices(provider, name, kind, at, tokens)
            assert shipped == oracle_prices(provider, name, kind, at, tokens), (kind, at, tokens)


def test_every_kind_of_call_that_has_a_price_is_compared() -> None:
    known = {tuple(sorted(ours.items())) for ours, _ in KINDS.values()}
    shipped = {
        tuple(
            (name, value)
            for name in ("batch", "region", "service_tier", "speed")
            if (value := getattr(entry, name))
        )
        for entry in FILES.entries
    }
    assert shipped <= known
    assert not any(entry.byok or entry.hours or entry.match != "exact" for entry in FILES.entries)
    variants = {
        tuple(variant.when.items())
        for provider, name in MODELS
        for variant in oracle_model(provider, name).price_variants or ()
        if vars(variant.prices)
    }
    assert variants == {tuple(theirs.items()) for _, theirs in KINDS.values()} - {()}


@pytest.mark.parametrize("name", IN_COMMENTS)
def test_a_price_from_a_comment_is_named_there(name: str) -> None:
    comment = oracle_model("google", name).price_comments or ""
    assert ("Flex tiers offer 50% discount" in comment) is ("flex" in IN_COMMENTS[name])
    assert ("Priority tier is 1.8x" in comment) is ("priority" in IN_COMMENTS[name])


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


NOT_TEXT = ("-tts", "-image", "-audio", "-realtime", "-transcribe", "embedding", "chatgpt-image")
TEXT_MODELS = [(provider, name) for provider, name in MODELS if not any(part in name for part in NOT_TEXT)]


@pytest.mark.parametrize(("provider", "name"), TEXT_MODELS)
def test_a_call_costs_what_the_catalogue_says(provider: str, name: str) -> None:
    at = datetime(2026, 11, 20, tzinfo=UTC)
    kinds = [
        kind
        for kind in ("ordinary", "batch", "flex", "priority", "fast")
        if kind not in IN_COMMENTS.get(name, ())
    ]
    for kind, tokens_read in product(kinds, [1_200, 100_000, 100_001, 200_001, 272_000, 272_001]):
        ours, theirs = KINDS[kind]
        usage = Usage(
            {"in_uncached": tokens_read - 1_024, "in_cache_read": 1_024, "out_visible": 108, "out_reasoning": 192},
            provider, model_served=name, **ours,
        )  # fmt: skip
        reported: dict[str, Any] = {
            "input_tokens": tokens_read,
            "output_tokens": 300,
            "cache_read_tokens": 1_024,
        }
        expected = oracle_model(provider, name).calc_price(
            OracleUsage(**reported),
            ORACLE[provider],
            genai_request_timestamp=at,
            price_context=theirs or None,
        )
        charge = rate_usage(CARD, usage, book="cost", at=at)
        assert (charge.status, charge.amount_input, charge.amount_output) == (
            "priced", expected.input_price, expected.output_price,
        ), (kind, tokens_read)  # fmt: skip


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


def test_a_batch_of_long_calls_has_the_long_price_of_batches() -> None:
    usage = Usage(
        {"in_uncached": 300_000, "out_visible": 1_000}, "openai", model_served="gpt-6-sol", batch=True
    )
    charge = rate_usage(CARD, usage, book="cost", at=INSTANTS[2])
    assert charge.total == (300_000 * Decimal(2) + 1_000 * Decimal("7.50")) / 1_000_000


def test_fast_calls_in_the_united_states_cost_a_tenth_more_than_fast_ones() -> None:
    usage = Usage({"in_uncached": 1_000, "out_visible": 100}, "anthropic", model_served="claude-opus-5-5", speed="fast",
                  region="us")  # fmt: skip
    charge = rate_usage(CARD, usage, book="cost", at=INSTANTS[2])
    assert charge.total == (1_000 * Decimal(8) + 100 * Decimal(40)) * Decimal("1.1") / 1_000_000


def test_the_demo_embeddings_cost_what_they_read() -> None:
    usage = Usage(buckets={"in_uncached": 11}, provider="demo", model_served="demo-embed")
    assert rate_usage(CARD, usage, book="cost", at=INSTANTS[2]).total == 11 * Decimal("0.02") / 1_000_000

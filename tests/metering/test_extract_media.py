"""Images and speech: tokens of other modalities, models beside the one that was asked, and seconds."""

from decimal import Decimal
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.usage import Usage, UsagePart
from tests.metering.payloads import body, event

FACTS = RequestFacts(model="asked-for", readable=True, tokens_input_estimate=11)


def read(fmt: str, **fields: Any) -> Usage:
    return wire_format(fmt).read_body(body(**fields), FACTS, "openai")


def watch(fmt: str, *events: bytes, complete: bool = True) -> Usage:
    tap = open_tap(wire_format(fmt), FACTS, "openai", "text/event-stream", "")
    for text in events:
        tap.feed(text)
    return tap.finish(complete)


# --- images ---

IMAGE_USAGE: dict[str, Any] = {
    "input_tokens": 60, "input_tokens_details": {"image_tokens": 40, "text_tokens": 20}, "output_tokens": 1056, "total_tokens": 1116,
}  # fmt: skip
IMAGE_BUCKETS = {"in_uncached": 20, "in_uncached.image": 40, "out_visible.image": 1056}
SVG = {
    "model": "gpt-5.6",
    "input_tokens": 30,
    "output_tokens": 500,
    "reasoning_tokens": 120,
    "total_tokens": 530,
}
SVG_PART = UsagePart({"in_uncached": 30, "out_visible": 380, "out_reasoning": 120}, "gpt-5.6", kind="svg")
PICTURE = {"b64_json": "A" * 3000}


def test_an_image_is_written_in_image_tokens() -> None:
    usage = read("openai_images", created=1, data=[PICTURE], usage=IMAGE_USAGE)
    assert (usage.buckets, usage.model, usage.consistency, usage.raw) == (
        IMAGE_BUCKETS,
        "asked-for",
        "ok",
        IMAGE_USAGE,
    )


@pytest.mark.parametrize("kind", ["image_generation", "image_edit"])
def test_an_image_stream_says_the_same_at_its_end(kind: str) -> None:
    usage = watch(
        "openai_images",
        event(f"{kind}.partial_image", b64_json="A" * 100, partial_image_index=0),
        event(f"{kind}.completed", b64_json="A" * 100, usage=IMAGE_USAGE),
    )
    assert usage == read("openai_images", data=[PICTURE], usage=IMAGE_USAGE)


def test_what_an_image_model_wrote_in_text_is_text_where_it_is_told() -> None:
    details = {"image_tokens": 1000, "text_tokens": 56}
    usage = read("openai_images", usage={**IMAGE_USAGE, "output_tokens_details": details})
    assert usage.buckets == {
        "in_uncached": 20,
        "in_uncached.image": 40,
        "out_visible": 56,
        "out_visible.image": 1000,
    }


def test_the_author_of_a_vector_image_is_a_model_of_its_own() -> None:
    usage = read("openai_images", data=[PICTURE], usage=IMAGE_USAGE, svg_usage=SVG)
    assert usage.parts == (UsagePart(IMAGE_BUCKETS), SVG_PART)
    assert usage.buckets == {
        "in_uncached": 20 + 30, "in_uncached.image": 40, "out_visible": 380, "out_visible.image": 1056, "out_reasoning": 120,
    }  # fmt: skip
    assert usage.raw == {**IMAGE_USAGE, "svg_usage": SVG}
    alone = read("openai_images", data=[PICTURE], svg_usage=SVG)
    assert (alone.parts, alone.source) == ((SVG_PART,), "reported")


def test_where_no_usage_is_told_the_images_are_counted() -> None:
    usage = read("openai_images", created=1, data=[PICTURE, {"url": "https://…", "revised_prompt": None}])
    assert (usage.buckets, usage.source, usage.rules) == ({"image": 2}, "reported", ("images_counted",))
    assert (usage.tokens_total, usage.raw) == (0, {"images": 2})


def test_an_image_billed_by_its_cost_is_counted_and_the_cost_kept() -> None:
    usage = read("openai_images", data=[PICTURE], usage={"cost_in_usd_ticks": 200_000_000})
    assert (usage.buckets, usage.reported_cost) == ({"image": 1}, Decimal("0.02"))


@pytest.mark.parametrize("data", [None, [], "x", 7, [7]])
def test_no_image_is_no_usage(data: Any) -> None:
    assert read("openai_images", data=data).source == "none"


def test_an_image_stream_that_breaks_off_says_nothing() -> None:
    usage = watch("openai_images", event("image_generation.partial_image", b64_json="A"), complete=False)
    assert (usage.source, usage.tokens_total) == ("none", None)


# --- speech ---

TOKENS: dict[str, Any] = {
    "type": "tokens", "input_tokens": 140, "input_token_details": {"audio_tokens": 126, "text_tokens": 14}, "output_tokens": 45,
    "total_tokens": 185,
}  # fmt: skip
TOKEN_BUCKETS = {"in_uncached": 14, "in_uncached.audio": 126, "out_visible": 45}
MISTRAL = {"prompt_audio_seconds": 203, "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264}


def test_a_transcription_by_tokens_whole_and_streamed() -> None:
    usage = read("openai_transcription", text="…", usage=TOKENS)
    assert (usage.buckets, usage.model, usage.consistency) == (TOKEN_BUCKETS, "asked-for", "ok")
    delta = event("transcript.text.delta", delta="transcript.text.done")
    assert (
        watch("openai_transcription", delta, event("transcript.text.done", text="…", usage=TOKENS)) == usage
    )


def test_mistral_bills_both_and_ends_its_stream_with_another_word() -> None:
    usage = read("openai_transcription", model="voxtral-mini-latest", text="…", usage=MISTRAL)
    assert usage.buckets == {"in_uncached": 4, "out_visible": 635, "audio_second": 203}
    done = event("transcription.done", model="voxtral-mini-latest", text="…", usage=MISTRAL)
    assert watch("openai_transcription", event("transcription.text.delta", text="…"), done) == usage


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        ("12.3", Decimal("12.3")), ("27", 27), ("27.0", 27), ("0", 0), ("0.000", 0), ("1e1", 10), ("12.300000190734863", Decimal("12.300000190734863")),
        ("12.30000000000000000001", Decimal("12.30000000000000000001")),
    ],
)  # fmt: skip
def test_seconds_are_the_fraction_that_was_sent(sent: str, seconds: int | Decimal) -> None:
    text = b'{"text": "\\"seconds\\": 99.5", "usage": {"type": "duration", "seconds": %s}}' % sent.encode()
    usage = wire_format("openai_transcription").read_body(text, FACTS, "openai")
    assert usage.buckets == {"audio_second": seconds}
    assert type(usage.buckets["audio_second"]) is type(seconds)
    assert (usage.source, usage.tokens_total, usage.unknown_sides) == ("reported", 0, ())


@pytest.mark.parametrize("bad", [-1, True, "12", [], 1e400, 2**53 + 1])
def test_what_is_no_duration_is_unknown_and_flagged(bad: Any) -> None:
    usage = read("openai_transcription", usage={"type": "duration", "seconds": bad})
    assert (usage.source, usage.buckets, usage.consistency) == ("none", {}, "inconsistent")


def test_the_duration_of_the_audio_counts_where_no_usage_is_told() -> None:
    usage = read("openai_transcription", text="…", duration=8.25, segments=[], x_groq={"id": "req_1"})
    assert (usage.buckets, usage.rules) == ({"audio_second": Decimal("8.25")}, ("duration_counted",))
    assert usage.raw == {"duration": 8.25}
    assert read("openai_transcription", text="…", x_groq={"id": "req_1"}).source == "none"


def test_a_transcription_that_breaks_off_is_estimated() -> None:
    delta = event("transcript.text.delta", delta="a")
    usage = watch("openai_transcription", delta, delta, complete=False)
    assert (usage.source, usage.buckets) == ("estimated", {"out_visible": 1, "in_uncached": 11})  # 2 bytes

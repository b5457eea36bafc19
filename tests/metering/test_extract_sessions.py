"""WebSocket sessions: responses are added up, running totals are not, and each model is billed at its own price."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import usage_of_messages
from pricing.usage import Usage, UsagePart

FACTS = RequestFacts(model="asked-for")


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, "event_id": "event_1", **fields})


def hear(fmt: str, *messages: str, complete: bool = True, provider: str = "openai") -> Usage:
    return usage_of_messages(wire_format(fmt), messages, facts=FACTS, provider=provider, complete=complete)


# --- Realtime ---

CREATED = message("session.created", session={
    "type": "realtime", "model": "gpt-realtime", "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}})  # fmt: skip
AUDIO = message("response.output_audio.delta", delta="AAAA" * 100)
FIRST = {  # of the input 20 of the text, 70 of the audio and 5 of the image came from the cache
    "total_tokens": 300, "input_tokens": 200, "output_tokens": 100,
    "input_token_details": {"text_tokens": 60, "audio_tokens": 130, "image_tokens": 10, "cached_tokens": 95,
                            "cached_tokens_details": {"text_tokens": 20, "audio_tokens": 70, "image_tokens": 5}},
    "output_token_details": {"text_tokens": 30, "audio_tokens": 70},
}  # fmt: skip
FIRST_BUCKETS = {
    "in_uncached": 40, "in_uncached.audio": 60, "in_uncached.image": 5, "in_cache_read": 20, "in_cache_read.audio": 70,
    "in_cache_read.image": 5, "out_visible": 30, "out_visible.audio": 70,
}  # fmt: skip
SECOND = {
    "total_tokens": 15,
    "input_tokens": 10,
    "output_tokens": 5,
    "input_token_details": {"text_tokens": 10, "cached_tokens": 0},
}
HEARD = {
    "type": "tokens",
    "input_tokens": 40,
    "input_token_details": {"audio_tokens": 38, "text_tokens": 2},
    "output_tokens": 9,
    "total_tokens": 49,
}
HEARD_BUCKETS = {"in_uncached": 2, "in_uncached.audio": 38, "out_visible": 9}


def done(usage: Any, id_: Any = "resp_1", status: str = "completed") -> str:
    return message(
        "response.done", response={"object": "realtime.response", "id": id_, "status": status, "usage": usage}
    )


def heard(usage: Any, item: Any = "item_1") -> str:
    return message(
        "conversation.item.input_audio_transcription.completed",
        item_id=item,
        content_index=0,
        transcript="…",
        usage=usage,
    )


def test_one_response_says_its_modalities_and_those_of_its_cache() -> None:
    usage = hear("openai_realtime", CREATED, AUDIO, done(FIRST))
    assert usage.buckets == FIRST_BUCKETS
    assert (usage.model_served, usage.model_requested, usage.parts) == ("gpt-realtime", "asked-for", ())
    assert (usage.source, usage.consistency, usage.tokens_input, usage.tokens_output) == (
        "reported",
        "ok",
        200,
        100,
    )


def test_the_responses_of_a_session_are_added_up() -> None:
    usage = hear("openai_realtime", CREATED, done(FIRST), AUDIO, done(SECOND, "resp_2"))
    assert usage.buckets == {**FIRST_BUCKETS, "in_uncached": 40 + 10, "out_visible": 30 + 5}
    assert usage.raw == {"reports": [FIRST, SECOND]}


def test_a_response_that_is_told_twice_counts_once_but_ids_may_be_missing() -> None:
    assert hear("openai_realtime", done(SECOND), done(SECOND)).tokens_total == 15
    for nothing in (None, "", 7):
        assert hear("openai_realtime", done(SECOND, nothing), done(SECOND, nothing)).tokens_total == 30


def test_transcription_is_billed_at_the_model_that_hears() -> None:
    usage = hear(
        "openai_realtime", CREATED, heard(HEARD), done(SECOND), heard(HEARD, "item_2"), heard(HEARD, "item_2")
    )
    twice = {bucket: 2 * count for bucket, count in HEARD_BUCKETS.items()}
    assert usage.parts == (
        UsagePart({"in_uncached": 10, "out_visible": 5}, "", kind="response"),
        UsagePart(twice, "gpt-4o-transcribe", kind="transcription"),
    )
    assert usage.buckets == {"in_uncached": 10 + 4, "in_uncached.audio": 76, "out_visible": 5 + 18}


def test_transcription_by_the_second_keeps_its_fractions() -> None:
    duration = {"type": "duration", "seconds": 1.1}
    usage = hear(
        "openai_realtime",
        CREATED,
        heard(duration),
        heard(duration, "item_2"),
        heard({**duration, "seconds": 0.2}, "item_3"),
    )
    assert usage.buckets == {"audio_second": Decimal("2.4")}
    assert usage.parts == (
        UsagePart({"audio_second": Decimal("2.4")}, "gpt-4o-transcribe", kind="transcription"),
    )


def test_a_model_that_hears_and_is_not_named_is_not_taken_for_the_one_that_speaks() -> None:
    usage = hear("openai_realtime", heard(HEARD))
    assert usage.parts[0].model == "input_audio_transcription"
    assert usage.rules == ("transcription_model_not_told",)


def test_the_older_place_of_the_transcription_model_and_a_change_of_it_are_seen() -> None:
    beta = message(
        "session.updated",
        session={"model": "gpt-4o-realtime", "input_audio_transcription": {"model": "whisper-1"}},
    )
    usage = hear("openai_realtime", CREATED, beta, heard(HEARD))
    assert (usage.parts[0].model, usage.model) == ("whisper-1", "gpt-4o-realtime")


def test_a_response_that_never_said_leaves_the_rest_partial() -> None:
    began = message("response.created", response={"id": "resp_1"})
    assert hear("openai_realtime", began, done(SECOND), began).source == "reported_partial"
    assert hear("openai_realtime", began, done(SECOND)).source == "reported"
    assert hear("openai_realtime", began, done(SECOND), complete=False).source == "reported_partial"
    assert hear("openai_realtime", began, done(None, status="failed")).source == "none"


def test_seconds_at_xai_stand_beside_the_response() -> None:
    said = message(
        "response.done", usage={"input_tokens": 10, "output_tokens": 5, "billable_audio_seconds": 4.5}
    )
    usage = hear("openai_realtime", said, provider="xai")
    assert usage.buckets == {"in_uncached": 10, "out_visible": 5, "audio_second": Decimal("4.5")}


def test_cached_modalities_that_do_not_fit_are_flagged_and_the_cache_is_taken_as_text_first() -> None:
    bad = {**FIRST, "input_token_details": {"text_tokens": 60, "audio_tokens": 140, "cached_tokens": 95,
                                            "cached_tokens_details": {"audio_tokens": 150}}}  # fmt: skip
    usage = hear("openai_realtime", done(bad))
    assert usage.tokens_input == 200
    assert usage.consistency == "inconsistent" and "modality_exceeds_side" in usage.rules


# --- Live ---

STARTED = message("session.started", session={"id": "sess_1", "model": "gpt-live-1", "status": "active"})


def used(seconds: Any) -> str:
    return message("session.usage.updated", usage={"seconds": seconds})


def delegated(kind: str = "response.completed", id_: str = "resp_1", **response: Any) -> str:
    told = {
        "id": id_,
        "model": "gpt-5.6",
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
        **response,
    }
    return message("response.event", delegation_id="d_1", event={"type": kind, "response": told})


def test_the_seconds_of_a_live_session_are_cumulative_and_the_last_hold() -> None:
    usage = hear("openai_live", STARTED, used(10), used(20.5), used(30.25))
    assert usage.buckets == {"audio_second": Decimal("30.25")}
    assert (usage.model, usage.source, usage.parts, usage.tokens_total) == ("gpt-live-1", "reported", (), 0)


def test_the_end_of_a_live_session_says_the_final_figure() -> None:
    closed = message(
        "session.closed", reason="close_requested", usage={"seconds": 31}, session={"model": "gpt-live-1"}
    )
    assert hear("openai_live", STARTED, used(30.25), closed, complete=False).source == "reported"
    assert hear("openai_live", STARTED, used(30.25), closed).buckets == {"audio_second": 31}
    assert wire_format("openai_live").read_body(closed.encode(), FACTS, "openai").buckets == {
        "audio_second": 31
    }


def test_work_that_is_delegated_is_billed_at_the_model_that_does_it() -> None:
    decided = message("decision.event", event={"type": "decision.completed", "decision": {
        "model": "gpt-decide", "usage": {"input_tokens": 7, "output_tokens": 1, "total_tokens": 8}}})  # fmt: skip
    usage = hear(
        "openai_live", STARTED, delegated("response.created", usage=None), delegated(), delegated(), decided, used(5),
        delegated("response.incomplete", "resp_2", tool_usage={"web_search": {"num_requests": 3}}),
    )  # fmt: skip
    assert usage.parts == (
        UsagePart({"audio_second": 5}),
        UsagePart({"in_uncached": 200, "out_visible": 40, "web_search": 3}, "gpt-5.6", kind="response"),
        UsagePart({"in_uncached": 7, "out_visible": 1}, "gpt-decide", kind="decision"),
    )
    assert usage.buckets == {"audio_second": 5, "in_uncached": 207, "out_visible": 41, "web_search": 3}


def test_a_session_that_never_said_its_seconds_is_unknown_or_partial() -> None:
    assert hear("openai_live", STARTED).source == "none"
    assert hear("openai_live", STARTED, delegated()).source == "reported_partial"
    assert hear("openai_live", used("much")).consistency == "inconsistent"


# --- both ---

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "response", "usage", "event", "session", "model", "seconds", "input_tokens"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
KINDS = ["session.created", "session.updated", "response.done", "response.created", "response.event", "decision.event",
         "session.closed", "session.usage.updated", "conversation.item.input_audio_transcription.completed"]  # fmt: skip


@pytest.mark.parametrize("fmt", ["openai_realtime", "openai_live"])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.dictionaries(st.sampled_from(["response", "usage", "event", "session", "item_id"]), ANYTHING),
        )
    )
)
def test_any_messages_are_survived(fmt: str, messages: list[tuple[str, dict[str, Any]]]) -> None:
    usage = hear(fmt, "no json", "[]", *[message(kind, **fields) for kind, fields in messages])
    assert all(count >= 0 for count in usage.buckets.values())

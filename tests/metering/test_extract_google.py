"""Google's shapes: the cache inside the prompt, thoughts and tool prompts beside, searches outside the usage."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import usage_of_messages
from pricing.usage import Usage
from tests.metering.payloads import body, data, event
from tests.metering.streams import JSON, SSE, array, tap_for, watch

FACTS = RequestFacts(model="gemini-asked-for", tokens_input_estimate=11, readable=True)

# 1000 + 200 + 50 + 300 = 1550; of the prompt 100 are an image, 400 of its text came from the cache
METADATA = {
    "promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 200, "thoughtsTokenCount": 300,
    "toolUsePromptTokenCount": 50, "totalTokenCount": 1550,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 900}, {"modality": "IMAGE", "tokenCount": 100}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}],
    "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 200}], "trafficType": "ON_DEMAND",
}  # fmt: skip
BUCKETS = {
    "in_uncached": 900 - 400,
    "in_uncached.image": 100,
    "in_cache_read": 400,
    "in_tool_prompt": 50,
    "out_visible": 200,
    "out_reasoning": 300,
}


def read(usage: Any, fmt: str = "gemini_generate", **fields: Any) -> Usage:
    return wire_format(fmt).read_body(body(usageMetadata=usage, **fields), FACTS, "google")


def counts(prompt: int | None, candidates: int | None, total: int | None, **more: Any) -> Usage:
    said = {"promptTokenCount": prompt, "candidatesTokenCount": candidates, "totalTokenCount": total, **more}
    return read({key: value for key, value in said.items() if value is not None})


def of(modality: str, count: int) -> dict[str, Any]:
    return {"modality": modality, "tokenCount": count}


# --- generateContent, whole ---


def test_a_response_becomes_disjoint_buckets() -> None:
    usage = read(METADATA, modelVersion="gemini-2.5-pro")
    assert usage.buckets == BUCKETS
    assert (usage.tokens_input, usage.tokens_output) == (1000 + 50, 200 + 300)
    assert (usage.model, usage.provider, usage.service_tier) == ("gemini-2.5-pro", "google", None)
    assert (usage.source, usage.consistency, usage.rules, usage.raw) == ("reported", "ok", (), METADATA)


@pytest.mark.parametrize(
    ("prompt", "candidates", "total", "more", "buckets", "consistency"),
    [
        pytest.param(8, None, 8, {}, {"in_uncached": 8, "out_visible": 0}, "ok", id="a prompt that was blocked"),
        pytest.param(8, None, 508, {"thoughtsTokenCount": 500}, {"in_uncached": 8, "out_reasoning": 500}, "ok",
                     id="nothing but thoughts"),
        pytest.param(8, None, None, {"thoughtsTokenCount": 500}, {"in_uncached": 8, "out_reasoning": 500}, "ok",
                     id="nothing but thoughts, and no total"),
        pytest.param(8, 0, 8, {}, {"in_uncached": 8, "out_visible": 0}, "ok", id="an explicit zero"),
        pytest.param(0, 0, 0, {}, {"in_uncached": 0, "out_visible": 0}, "ok", id="explicit zeros"),
        pytest.param(8, None, 20, {}, {"in_uncached": 8, "out_visible": 12}, "repaired:output_from_total",
                     id="candidates that only the total tells"),
        pytest.param(None, 12, 20, {}, {"in_uncached": 8, "out_visible": 12}, "repaired:input_from_total",
                     id="a prompt that only the total tells"),
        pytest.param(8, 12, 99, {}, {"in_uncached": 8, "out_visible": 12}, "inconsistent", id="a total too large"),
        pytest.param(8, 12, 19, {}, {"in_uncached": 8, "out_visible": 12}, "inconsistent", id="a total too small"),
        pytest.param(8, 12, 20, {"cachedContentTokenCount": 9}, {"in_cache_read": 8, "out_visible": 12}, "inconsistent",
                     id="more cache than prompt"),
        pytest.param(30, 40, 870, {"toolUsePromptTokenCount": 800,
                                   "toolUsePromptTokensDetails": [of("TEXT", 542), of("DOCUMENT", 258)]},
                     {"in_uncached": 30, "in_tool_prompt": 542, "in_tool_prompt.document": 258, "out_visible": 40}, "ok",
                     id="tool prompts by modality"),
        pytest.param(1300, 20, 1320, {"cachedContentTokenCount": 200, "cacheTokensDetails": [of("AUDIO", 200)],
                                      "promptTokensDetails": [of("TEXT", 10), of("AUDIO", 290), of("VIDEO", 1000)]},
                     {"in_uncached": 10, "in_uncached.audio": 90, "in_uncached.video": 1000, "in_cache_read.audio": 200,
                      "out_visible": 20}, "ok", id="audio from the cache"),
        pytest.param(1300, 20, 1320, {"cachedContentTokenCount": 200,
                                      "promptTokensDetails": [of("TEXT", 110), of("AUDIO", 1190)]},
                     {"in_uncached.audio": 1190 - 90, "in_cache_read": 110, "in_cache_read.audio": 90, "out_visible": 20},
                     "repaired:cache_taken_as_text", id="a cache that does not say its modality"),
        pytest.param(600, 20, 620, {"promptTokensDetails": [of("TEXT", 42), of("DOCUMENT", 558)]},
                     {"in_uncached": 42, "in_uncached.document": 558, "out_visible": 20}, "ok", id="a PDF"),
        pytest.param(10, 1302, 1312, {"candidatesTokensDetails": [of("TEXT", 12), of("IMAGE", 1290)]},
                     {"in_uncached": 10, "out_visible": 12, "out_visible.image": 1290}, "ok", id="an image drawn"),
        pytest.param(10, 20, 30, {"promptTokensDetails": [of("HOLOGRAM", 4), of("MODALITY_UNSPECIFIED", 6), 7, {}]},
                     {"in_uncached": 10, "out_visible": 20}, "ok", id="what is no known modality is text"),
        pytest.param(10, 20, 30, {"promptTokensDetails": [of("AUDIO", 11)]},
                     {"in_uncached": 10, "out_visible": 20}, "inconsistent", id="more audio than prompt"),
        pytest.param(10, 20, 30, {"promptTokensDetails": [of("AUDIO", 3)], "cachedContentTokenCount": 5,
                                  "cacheTokensDetails": [of("AUDIO", 4)]},
                     {"in_uncached": 5, "in_cache_read": 5, "out_visible": 20}, "inconsistent",
                     id="more audio in the cache than in the prompt"),
    ],
)  # fmt: skip
def test_variants_of_the_shape(
    prompt: int | None, candidates: int | None, total: int | None, more: dict[str, Any], buckets: dict[str, int],
    consistency: str,
) -> None:  # fmt: skip
    usage = counts(prompt, candidates, total, **more)
    assert (usage.buckets, usage.consistency) == (buckets, consistency)


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({"trafficType": "ON_DEMAND"}, None),
        ({"trafficType": "TRAFFIC_TYPE_UNSPECIFIED"}, None),
        ({"trafficType": "ON_DEMAND_FLEX"}, "flex"),
        ({"trafficType": "ON_DEMAND_PRIORITY"}, "priority"),
        ({"trafficType": "ON_DEMAND_OFFPEAK"}, "offpeak"),
        ({"trafficType": "PROVISIONED_THROUGHPUT"}, "provisioned"),
        ({"serviceTier": "priority"}, "priority"),
        ({"serviceTier": "standard"}, None),
        ({"serviceTier": "flex", "trafficType": "ON_DEMAND"}, "flex"),
        ({"serviceTier": 7, "trafficType": []}, None),
    ],
)
def test_the_kind_of_traffic_is_the_tier(said: dict[str, Any], tier: str | None) -> None:
    assert read({**METADATA, "trafficType": None, **said}).service_tier == tier


@pytest.mark.parametrize(
    ("version", "model"),
    [
        ("gemini-2.5-pro", "gemini-2.5-pro"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("publishers/google/models/gemini-2.5-pro", "gemini-2.5-pro"),
        (None, "gemini-asked-for"),
        ("", "gemini-asked-for"),
        (7, "gemini-asked-for"),
    ],
)
def test_the_version_that_served_is_the_model(version: Any, model: str) -> None:
    assert read(METADATA, modelVersion=version).model == model


def grounded(*queries: str, **more: Any) -> dict[str, Any]:
    return {"finishReason": "STOP", "groundingMetadata": {"webSearchQueries": list(queries), **more}}


def test_searches_are_counted_outside_the_usage_each_once() -> None:
    candidates = [grounded("weather berlin", "weather berlin tomorrow"), grounded("weather berlin", " ", "")]
    usage = read(METADATA, candidates=candidates)
    assert usage.buckets == {**BUCKETS, "grounding_query": 2}
    assert usage.raw["groundingMetadata"]["webSearchQueries"] == ["weather berlin", "weather berlin tomorrow"]


def test_places_of_a_map_are_one_grounded_prompt_and_retrievals_are_searches() -> None:
    places = [{"maps": {"placeId": "places/1"}}, {"maps": {"placeId": "places/2"}}, {"web": {}}]
    candidate = grounded(groundingChunks=places, retrievalQueries=["handbook"], imageSearchQueries=["cats"])
    usage = read(METADATA, candidates=[candidate])
    assert usage.buckets == {**BUCKETS, "grounding_query": 1, "map_query": 1, "file_search": 1}


@pytest.mark.parametrize("noise", [None, 7, [], [7], [{"groundingMetadata": 7}],
                                   [{"groundingMetadata": {"webSearchQueries": 7, "groundingChunks": [7]}}]])  # fmt: skip
def test_candidates_that_cannot_be_read_count_no_searches(noise: Any) -> None:
    assert read(METADATA, candidates=noise, groundingMetadata={}).buckets == BUCKETS


def test_a_line_of_a_batch_result_is_a_response_at_the_batch_rate() -> None:
    response = {"usageMetadata": METADATA, "modelVersion": "gemini-2.5-pro", "candidates": [grounded("q")]}
    usage = wire_format("gemini_generate").read_body(body(key="r-1", response=response), FACTS, "google")
    assert (usage.buckets, usage.batch) == ({**BUCKETS, "grounding_query": 1}, True)
    assert (usage.model, usage.consistency) == ("gemini-2.5-pro", "ok")


def test_no_metadata_is_no_usage() -> None:
    usage = wire_format("gemini_generate").read_body(body(candidates=[{}], modelVersion="m"), FACTS, "google")
    assert (usage.source, usage.tokens_total, usage.model) == ("none", None, "m")
    assert read([1]).consistency == "inconsistent"


# --- generateContent, streamed ---


def chunk(text: str | None, usage: Any = None, **candidate: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"modelVersion": "gemini-2.5-pro", "responseId": "r1"}
    if text is not None:
        said["candidates"] = [
            {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}, **candidate}
        ]
    if usage is not None:
        said["usageMetadata"] = usage
    return said


SO_FAR = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "thoughtsTokenCount": 120,
    "totalTokenCount": 1120,
}
CHUNKS = [
    chunk('Hi "usageMetadata" }]', SO_FAR),
    chunk(" \\ é [", {**SO_FAR, "candidatesTokenCount": 90, "totalTokenCount": 1210}),
    chunk(".", METADATA, finishReason="STOP"),
]
FORMS = [
    pytest.param(SSE, b"".join(data(each) for each in CHUNKS), id="events"),
    pytest.param(SSE, b"".join(data(each, line_end=b"\r\n") for each in CHUNKS), id="events, CRLF"),
    pytest.param(JSON, array(*CHUNKS), id="array"),
    pytest.param("text/html; charset=utf-8", array(*CHUNKS), id="array whose type was lost"),
    pytest.param(
        "application/octet-stream", b"".join(data(each) for each in CHUNKS), id="events whose type was lost"
    ),
]


@pytest.mark.parametrize(("content_type", "text"), FORMS)
def test_a_stream_cut_anywhere_says_what_the_whole_response_says(content_type: str, text: bytes) -> None:
    whole = read(METADATA, modelVersion="gemini-2.5-pro")
    for place in range(1, len(text)):
        tap = tap_for("gemini_generate", content_type, provider="google")
        usage = watch(tap, [text[:place], text[place:]])[1]
        assert (usage.buckets, usage.source, usage.rules) == (BUCKETS, "reported", ()), place
        assert (usage.model, usage.raw) == (whole.model, whole.raw)


def test_the_bracket_that_ends_the_array_waits_for_the_commit() -> None:
    text = array(*CHUNKS)
    passed = watch(tap_for("gemini_generate", JSON), [text])[0]
    assert passed == text[: text.rindex(b"]")]


def stream(*chunks: Any, complete: bool = True) -> Usage:
    tap = tap_for("gemini_generate", SSE, provider="google")
    return watch(tap, [data(each) for each in chunks], complete=complete)[1]


def test_totals_are_never_added_and_the_last_of_each_field_holds() -> None:
    first = {
        "promptTokenCount": 8,
        "cachedContentTokenCount": 3,
        "candidatesTokenCount": 4,
        "totalTokenCount": 12,
    }
    alone = {
        "modelVersion": "gemini-2.5-pro",
        "usageMetadata": {"candidatesTokenCount": 12, "totalTokenCount": 20},
    }
    assert stream(chunk("Hi", first), alone).buckets == {
        "in_uncached": 5,
        "in_cache_read": 3,
        "out_visible": 12,
    }


def test_a_chunk_may_be_nothing_but_usage() -> None:
    usage = stream(chunk("Hi", finishReason="STOP"), chunk(None, METADATA))
    assert (usage.buckets, usage.source) == (BUCKETS, "reported")


def test_a_stream_that_breaks_off_has_the_totals_so_far() -> None:
    usage = stream(*CHUNKS[:2], complete=False)
    assert (usage.source, usage.tokens_input, usage.tokens_output) == ("reported_partial", 1000, 90 + 120)
    assert stream(*CHUNKS, complete=False).source == "reported"


def test_an_error_ends_a_stream_and_leaves_what_was_used() -> None:
    error = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}}
    usage = stream(*CHUNKS[:2], error)
    assert (usage.source, usage.tokens_output) == ("reported_partial", 210)
    assert usage.metadata == {"stream_error": "UNAVAILABLE"}
    assert watch(tap_for("gemini_generate", JSON), [array(error)])[1].source == "none"


def test_a_stream_without_usage_is_estimated() -> None:
    usage = stream(chunk("Hi"), chunk(" there"), chunk(".", finishReason="STOP"))
    assert (usage.source, usage.buckets, usage.model) == (
        "estimated",
        {"in_uncached": 11, "out_visible": 3},
        "gemini-2.5-pro",
    )


def test_queries_of_all_chunks_count_once() -> None:
    usage = stream(
        chunk("a", METADATA, groundingMetadata={"webSearchQueries": ["one"]}),
        chunk("b", METADATA, groundingMetadata={"webSearchQueries": ["one", "two"]}, finishReason="STOP"),
    )
    assert usage.buckets == {**BUCKETS, "grounding_query": 2}


COUNTS = st.integers(0, 10**6)


@given(
    prompt=COUNTS, cached=COUNTS, candidates=COUNTS, thoughts=COUNTS, tool_prompt=COUNTS, image=COUNTS,
    queries=st.lists(st.sampled_from(["one", "two", "three", ""])), as_array=st.booleans(),
)  # fmt: skip
def test_a_streamed_response_says_what_the_whole_one_says(
    prompt: int, cached: int, candidates: int, thoughts: int, tool_prompt: int, image: int, queries: list[str],
    as_array: bool,
) -> None:  # fmt: skip
    usage = {
        "promptTokenCount": prompt, "cachedContentTokenCount": min(cached, prompt), "candidatesTokenCount": candidates,
        "thoughtsTokenCount": thoughts, "toolUsePromptTokenCount": tool_prompt,
        "totalTokenCount": prompt + candidates + thoughts + tool_prompt,
        "promptTokensDetails": [of("TEXT", prompt - min(image, prompt)), of("IMAGE", min(image, prompt))],
    }  # fmt: skip
    last = chunk(".", usage, **grounded(*queries))
    whole = wire_format("gemini_generate").read_body(body(**last), FACTS, "google")
    chunks = [chunk("Hi", {**usage, "candidatesTokenCount": 0, "totalTokenCount": 1}), last]
    text = array(*chunks) if as_array else b"".join(data(each) for each in chunks)
    streamed = watch(tap_for("gemini_generate", JSON if as_array else SSE, provider="google"), [text])[1]
    assert msgspec.structs.replace(streamed, model_requested=None) == msgspec.structs.replace(
        whole, model_requested=None
    )
    assert whole.tokens_input == prompt + tool_prompt
    assert whole.tokens_output == candidates + thoughts
    assert whole.buckets.get("grounding_query", 0) == len(set(queries) - {""})


# --- Live ---

TURN_1 = {"promptTokenCount": 300, "responseTokenCount": 120, "thoughtsTokenCount": 30, "totalTokenCount": 450,
          "promptTokensDetails": [of("TEXT", 50), of("AUDIO", 250)], "responseTokensDetails": [of("AUDIO", 120)]}  # fmt: skip
TURN_2 = {"promptTokenCount": 700, "responseTokenCount": 80, "totalTokenCount": 780,
          "promptTokensDetails": [of("TEXT", 200), of("AUDIO", 500)], "responseTokensDetails": [of("AUDIO", 80)]}  # fmt: skip
SETUP: dict[str, Any] = {"setupComplete": {}}
SPOKEN = {"serverContent": {"modelTurn": {"parts": [{"inlineData": {"data": "UklGRg=="}}]}}}
END = {"serverContent": {"turnComplete": True}}


def live(*messages: Any, complete: bool = True) -> Usage:
    texts = [json.dumps(message) for message in messages]
    return usage_of_messages(
        wire_format("gemini_live"), texts, facts=FACTS, provider="google", complete=complete
    )


def test_a_spoken_turn_counts_responses_in_place_of_candidates() -> None:
    usage = live(SETUP, SPOKEN, {**END, "usageMetadata": TURN_1})
    assert usage.buckets == {
        "in_uncached": 50,
        "in_uncached.audio": 250,
        "out_visible.audio": 120,
        "out_reasoning": 30,
    }
    assert (usage.source, usage.model, usage.raw) == ("reported", "gemini-asked-for", TURN_1)


BOTH_TURNS = {
    "in_uncached": 50 + 200,
    "in_uncached.audio": 250 + 500,
    "out_visible.audio": 120 + 80,
    "out_reasoning": 30,
}


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([SPOKEN, {**END, "usageMetadata": TURN_1}, SPOKEN, {**END, "usageMetadata": TURN_2}], id="with the end"),
        pytest.param([SPOKEN, END, {"usageMetadata": TURN_1}, SPOKEN, END, {"usageMetadata": TURN_2}], id="after the end"),
        pytest.param([{**END, "usageMetadata": TURN_1}, {**END, "usageMetadata": TURN_2}], id="nothing between"),
        pytest.param([SPOKEN, {**SPOKEN, "usageMetadata": {**TURN_1, "responseTokenCount": 9, "totalTokenCount": 339}},
                      {**END, "usageMetadata": TURN_1}, SPOKEN, {**END, "usageMetadata": TURN_2}], id="several in a turn"),
    ],
)  # fmt: skip
def test_turns_are_added_and_what_grows_within_a_turn_is_not(messages: list[Any]) -> None:
    usage = live(SETUP, *messages)
    assert (usage.buckets, usage.source, usage.consistency) == (BOTH_TURNS, "reported", "ok")
    assert usage.raw == {"turns": [TURN_1, TURN_2]}


def test_a_connection_that_breaks_inside_a_turn_is_partial() -> None:
    assert live(SPOKEN, {"usageMetadata": TURN_1}, complete=False).source == "reported_partial"
    assert live(SPOKEN, {**END, "usageMetadata": TURN_1}, complete=False).source == "reported"


def test_a_connection_without_usage_is_estimated_where_something_was_said() -> None:
    assert live(SETUP, SPOKEN, END).source == "estimated"
    assert live(SETUP).source == "none"


# --- Interactions ---

INTERACTION_USAGE = {
    "total_input_tokens": 700, "total_cached_tokens": 100, "total_output_tokens": 60, "total_thought_tokens": 240,
    "total_tool_use_tokens": 90, "total_tokens": 1090,
    "input_tokens_by_modality": [{"modality": "text", "tokens": 442}, {"modality": "image", "tokens": 258}],
    "cached_tokens_by_modality": [{"modality": "text", "tokens": 100}],
    "grounding_tool_count": [{"type": "google_search", "count": 3}, {"type": "google_maps", "count": 1},
                             {"type": "retrieval", "count": 2}],
}  # fmt: skip
INTERACTION_BUCKETS = {
    "in_uncached": 442 - 100, "in_uncached.image": 258, "in_cache_read": 100, "in_tool_prompt": 90, "out_visible": 60,
    "out_reasoning": 240, "grounding_query": 3, "map_query": 1, "file_search": 2,
}  # fmt: skip
INTERACTION = {
    "object": "interaction",
    "model": "gemini-3-pro",
    "service_tier": "flex",
    "usage": INTERACTION_USAGE,
}


def interact(*chunks: bytes, complete: bool = True) -> Usage:
    return watch(tap_for("google_interactions", SSE, provider="google"), chunks, complete=complete)[1]


def step(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\n" + data({"event_type": kind, **fields})


def test_an_interaction_has_gemini_s_counters_under_other_names() -> None:
    usage = wire_format("google_interactions").read_body(body(**INTERACTION), FACTS, "google")
    assert usage.buckets == INTERACTION_BUCKETS
    assert (usage.model, usage.service_tier, usage.consistency) == ("gemini-3-pro", "flex", "ok")


def test_a_streamed_interaction_says_it_when_it_is_completed() -> None:
    whole = wire_format("google_interactions").read_body(
        body(**INTERACTION), RequestFacts(model="asked-for"), "google"
    )
    begun = step("interaction.created", interaction={**INTERACTION, "usage": None})
    usage = interact(
        begun,
        step("step.delta", delta={"text": "Hi"}),
        step("interaction.completed", interaction=INTERACTION),
    )
    assert usage == whole


@pytest.mark.parametrize(
    "kind", ["interaction.completed", "interaction.cancelled", "interaction.failed", "error"]
)
def test_each_end_of_an_interaction_waits_for_the_commit(kind: str) -> None:
    begun, end = step("interaction.created", interaction={"model": "m"}), step(kind, usage=INTERACTION_USAGE)
    assert watch(tap_for("google_interactions", SSE), [begun, end])[0] == begun


def test_running_totals_of_an_interaction_are_partial_until_it_ends() -> None:
    chunks = [
        step("interaction.created", interaction={"model": "gemini-3-pro"}),
        step("step.delta", metadata={"total_usage": {"total_input_tokens": 700, "total_output_tokens": 5}}),
        step("step.stop", usage={"total_output_tokens": 30}, step_usage={"total_output_tokens": 25}),
    ]
    usage = interact(*chunks, complete=False)
    assert (usage.source, usage.buckets) == ("reported_partial", {"in_uncached": 700, "out_visible": 30})
    assert interact(*chunks, step("error", error={"code": "quota"}), complete=True).metadata == {
        "stream_error": "quota"
    }


def test_a_tool_that_is_not_known_leaves_a_note() -> None:
    usage = {
        **INTERACTION_USAGE,
        "grounding_tool_count": [{"type": "google_moon", "count": 1}, 7, {"count": None}],
    }
    read_usage = wire_format("google_interactions").read_body(body(usage=usage), FACTS, "google")
    assert read_usage.consistency == "repaired:tool_not_known"


# --- embeddings ---


def embed(model: str, **fields: Any) -> Usage:
    return wire_format("gemini_embeddings").read_body(body(**fields), RequestFacts(model=model), "google")


def predictions(*token_counts: Any) -> list[dict[str, Any]]:
    return [{"embeddings": {"values": [0.1], "statistics": {"token_count": count}}} for count in token_counts]


def test_embeddings_with_metadata_are_input_only() -> None:
    usage = embed("gemini-embedding-001", embedding={"values": [0.1]}, usageMetadata={"promptTokenCount": 7})
    assert usage.buckets == {"in_uncached": 7, "out_visible": 0}
    image = {"promptTokenCount": 265, "promptTokensDetails": [of("TEXT", 7), of("IMAGE", 258)]}
    assert embed("m", usageMetadata=image).buckets == {
        "in_uncached": 7,
        "in_uncached.image": 258,
        "out_visible": 0,
    }


def test_embeddings_with_statistics_are_added_over_the_items() -> None:
    usage = embed("text-embedding-005", predictions=predictions(4.0, 6.0))
    assert (usage.buckets, usage.raw) == (
        {"in_uncached": 10, "out_visible": 0},
        {"statistics": [{"token_count": 4.0}, {"token_count": 6.0}]},
    )
    items = [{"values": [0.1], "statistics": {"token_count": 3, "truncated": False}}]
    assert embed("m", embeddings=items).buckets == {"in_uncached": 3, "out_visible": 0}


def test_embeddings_that_are_billed_by_the_character() -> None:
    usage = embed(
        "textembedding-gecko", predictions=[{"embeddings": {}}], metadata={"billableCharacterCount": 10}
    )
    assert usage.buckets == {"character": 10, "out_visible": 0}
    both = embed("text-embedding-005", predictions=predictions(4), metadata={"billable_character_count": 12})
    assert both.buckets == {"in_uncached": 4, "character": 12, "out_visible": 0}


def test_characters_of_a_model_that_is_billed_by_the_token_are_no_unit() -> None:
    usage = embed("gemini-embedding-001", predictions=predictions(4), metadata={"billableCharacterCount": 12})
    assert usage.buckets == {"in_uncached": 4, "out_visible": 0}
    assert usage.raw["billableCharacterCount"] == 12


@pytest.mark.parametrize("count", [None, 1.5, True, "4", -1])
def test_an_item_without_a_count_leaves_the_input_unknown(count: Any) -> None:
    usage = embed("m", predictions=predictions(4, count))
    assert (usage.source, usage.buckets, usage.consistency) == ("none", {}, "inconsistent")


def test_embeddings_that_say_nothing_are_no_usage() -> None:
    assert embed("m", embedding={"values": [0.1]}).source == "none"


# --- anything at all ---

NAMES = st.sampled_from([
    *METADATA, "usageMetadata", "candidates", "groundingMetadata", "webSearchQueries", "groundingChunks", "maps", "response",
    "modelVersion", "error", "serverContent", "turnComplete", "toolCall", "modality", "tokenCount", "responseTokenCount",
    *INTERACTION_USAGE, "interaction", "event_type", "usage", "metadata", "predictions", "embeddings", "embedding",
    "statistics", "token_count", "billableCharacterCount", "type", "count", "tokens", "finishReason", "serviceTier", "key",
])  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats()
    | st.sampled_from(["AUDIO", "error", "\ud800"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
GOOGLE = ["gemini_generate", "gemini_live", "gemini_embeddings", "google_interactions"]


@given(st.dictionaries(NAMES, DOCUMENTS), st.sampled_from(GOOGLE), st.booleans())
def test_any_json_gives_a_usage_that_can_be_trusted(
    document: dict[str, Any], fmt: str, complete: bool
) -> None:
    streamed = watch(tap_for(fmt, SSE), [data(document)] if _is_text(document) else [], complete=complete)[1]
    for usage in (wire_format(fmt).read_body(body(**document), FACTS, "google"), streamed):
        assert all(type(count) is int and count >= 0 for count in usage.buckets.values())
        assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)
        assert usage.source in ("none", "estimated") or len(usage.unknown_sides) < 2


def _is_text(document: Any) -> bool:
    return "\\ud800" not in json.dumps(document)


@given(st.binary(), st.sampled_from(GOOGLE))
def test_any_bytes_are_survived(text: bytes, fmt: str) -> None:
    assert wire_format(fmt).read_body(text, FACTS, "google").source == "none"


def test_named_events_change_nothing() -> None:
    assert (
        watch(tap_for("gemini_generate", SSE), [event("message", usageMetadata=METADATA)])[1].buckets
        == BUCKETS
    )

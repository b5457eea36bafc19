"""The upper bound of a call from its request: what it can read and write at the most, before it goes out.

The body as a whole bounds the text of a call in any wire format: messages, instructions, tools and schemas all stand in it,
and its field names and punctuation pay for what a provider wraps around a message. Only what is not text has to be found:
images, sound, films and documents are taken out and counted by kind. What stands somewhere else (an earlier response, a
file, a cached content) can fill the model's context, if we know how large that is. What cannot be bounded is None, and
what may go beyond a bound that is given is named in `open_ended`: a settle above its hold is written off, visibly.

A body of 2 KiB takes 10 to 15 µs; an image of a megabyte in it half a millisecond.
"""

import json
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.tiers import normal_tier, normal_word
from metering.hold_bound.caps import ModelCap, cap_of
from metering.hold_bound.media import AUDIO_BYTES_PER_SECOND, AUDIO_TOKENS_PER_SECOND
from metering.hold_bound.parts import Json, RequestMedia
from metering.hold_bound.text import text_tokens
from metering.hold_bound.unread import heads, is_heavy

COUNT_MAX = 2**53
_NAMES_MAX, _NAME_MAX = 16, 64  # of what is open-ended: callers choose some of these names

# What a chat template or a provider's own system prompt adds, beyond what the body's punctuation pays for.
_TEMPLATE_TOKENS = 64
_GROK_TEMPLATE_TOKENS = 1_024
_TOOLS_TEMPLATE_TOKENS = 1_024  # Claude's: once, and again for each tool that Anthropic defines

_IMAGE_OUTPUT_TOKENS = 6_240  # 1,536 × 1,024 pixels in high quality
_IMAGE_OUTPUT_PIXELS = 1_536 * 1_024
_PARTIAL_IMAGES_TOKENS = 300  # three of them

# Where a request limits what is written, and where it asks for several answers: at its top, or in an object there.
# Only the names that the wire format knows: a server that ignores a name it does not know would write on and on.
_CHAT_LIMITS = frozenset({"max_completion_tokens", "max_tokens"})
LIMITS = {
    "openai_chat": _CHAT_LIMITS,
    "openai_completions": frozenset({"max_tokens"}),
    "openai_responses": frozenset({"max_output_tokens"}),
    "perplexity_responses": frozenset({"max_output_tokens"}),
    "anthropic_messages": frozenset({"max_tokens"}),
    "bedrock_invoke": frozenset(
        {
            "max_tokens",
            "maxTokens",
            "max_gen_len",
            "max_tokens_to_sample",
            "max_completion_tokens",
            "max_new_tokens",
        }
    ),
    "cohere_chat": frozenset({"max_tokens"}),
    "cohere_v1": frozenset({"max_tokens"}),
    "cloudflare_run": frozenset({"max_tokens"}),
    "execute": frozenset({"max_tokens"}),
}
_COUNTS = frozenset({"n", "best_of", "num_generations"})
CONFIGS = frozenset(
    {
        "generationConfig",
        "generation_config",
        "inferenceConfig",
        "textGenerationConfig",
        "completion_args",
        "options",
    }
)
CONFIG_LIMITS = frozenset(
    {
        "maxOutputTokens", "max_output_tokens", "maxTokens", "max_tokens", "max_new_tokens", "maxNewTokens", "maxTokenCount",
        "num_predict",
    }
)  # fmt: skip
_CONFIG_COUNTS = frozenset({"candidateCount", "candidate_count"})
_THINKING_BUDGETS = frozenset({"thinkingBudget", "thinking_budget"})

# What makes a call read what its body does not hold …
_STORED = frozenset(
    {
        "previous_response_id", "previous_interaction_id", "conversation", "conversation_id", "cachedContent",
        "cached_content", "thread", "thread_id", "agent_id", "assistant_id",
    }
)  # fmt: skip
# … what makes it read several times, each time with what came of the last …
_ROUNDS = frozenset({"web_search_options", "mcp_servers", "plugins", "search_parameters"})
# … and what makes it write more than its limit, as a rule by other models.
_WRITERS = frozenset({"fallbacks", "models", "compaction", "agent"})
# What is billed beside the tokens, by its own measure.
_FEES = frozenset({"guardrailConfig"})
_WRITING_TOOLS = ("advisor", "image_generation")

# Tools that the caller runs itself. Any other kind runs at the provider, in as many rounds as it takes.
_CALLERS_TOOLS = frozenset(
    {
        "function", "custom", "namespace", "local_shell", "apply_patch", "computer", "computer_use_preview",
        "functionDeclarations", "function_declarations", "toolSpec", "cachePoint",
    }
)  # fmt: skip
_ANTHROPICS_CALLERS_TOOLS = ("bash_", "text_editor_", "computer_", "memory_")

_SPECIAL = _STORED | _ROUNDS | _WRITERS | _FEES | {"tools", "toolConfig", "context_management", "prompt"}

_BEYOND_LIMITS = frozenset({"thinking", "prediction"})
# What of a body is read where the rest is too much of it: all that decides what may be written, and by which prices.
_DECIDING = (
    frozenset().union(*LIMITS.values()) | _COUNTS | CONFIGS | _SPECIAL | _BEYOND_LIMITS
    | {"modalities", "size", "documents", "message", "service_tier", "serviceTier", "speed", "inference_geo"}
)  # fmt: skip
_NONE: frozenset[str] = frozenset()
_NO_REQUEST = frozenset(
    {"openai_batch", "openai_live", "openai_realtime", "gemini_live", "otel_span"}
)  # of one call
_NO_OUTPUT = frozenset({"openai_embeddings", "gemini_embeddings", "mistral_ocr"})
_CLAUDES = frozenset(
    {"anthropic_messages", "bedrock_converse", "bedrock_invoke"}
)  # where caching is asked for
_CACHE_TTLS = ("5m", "30m", "1h", "12h", "unknown")
_GOOGLES = frozenset(
    {"gemini_generate", "google_interactions"}
)  # where a model writes what it can if nothing is said
_MODALITIES = frozenset({"image", "audio", "video"})


class HoldBound(msgspec.Struct, frozen=True):
    """What one call can use at the most. None: there is no bound, or none that we know of."""

    tokens_input: dict[str, int] | None  # by modality, "" for text and for whatever it may be
    tokens_output: int | None  # of all kinds, and of all answers where several are asked for
    units: dict[str, int] = {}  # those that the request bounds: images made, searches, seconds of sound
    cache_writes: tuple[
        str, ...
    ] = ()  # the times to live with which tokens read may be billed as written to a cache
    writes: tuple[str, ...] = ("",)  # the modalities of what is written, "" for text
    service_tier: str | None = None  # asked for, in the form that rates use; the ordinary ones are None
    speed: str | None = None
    region: str | None = None
    open_ended: tuple[
        str, ...
    ] = ()  # the fields for which the call may use more, or things of which nothing is said here


NOTHING_KNOWN = HoldBound(None, None, open_ended=("body",))


def hold_bound(body: bytes, wire_format: str, facts: RequestFacts) -> HoldBound:
    """The bound of a request: its body as the upstream reads it (not compressed), the name of its wire format, its facts.

    Never raises. What is no JSON object has no bound; a transcription is bounded by its size. Of a key that stands twice
    the last one counts, as it does for providers.
    """
    model = facts.model or ""
    cap = cap_of(model)
    if wire_format == "openai_transcription":
        return _transcription(len(body), cap)
    if wire_format in _NO_REQUEST:
        return NOTHING_KNOWN
    unread = is_heavy(body)
    document = _heads(body) if unread else _decode(body)
    if document is None:
        return NOTHING_KNOWN
    try:
        return _Request(document, body, wire_format, model, cap, unread=unread).bound()
    except (RecursionError, OverflowError):  # nested deeper, or larger, than anything that is meant
        return NOTHING_KNOWN


def _heads(body: bytes) -> Json | None:
    """What of a heavy body decides how much the call may write; None where any of that is unread."""
    found = heads(body, _DECIDING)
    return None if found is None or found[1] else found[0]


def _transcription(size: int, cap: ModelCap) -> HoldBound:
    """A form with a sound file, in whatever format."""
    seconds = 1 + size // AUDIO_BYTES_PER_SECOND
    sound = {"": _TEMPLATE_TOKENS, "audio": seconds * AUDIO_TOKENS_PER_SECOND}
    return HoldBound(sound, cap.output, units={"audio_second": seconds})


def _decode(body: bytes) -> Json | None:
    """The body where it is a JSON object. The second try takes what providers take as well: NaN, half surrogate pairs."""
    try:
        document = _decode_strictly(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return None
    return document if type(document) is dict else None


_decode_strictly = msgspec.json.Decoder().decode


class _Request:
    """One request on its way to its bound."""

    __slots__ = (
        "_body",
        "_cap",
        "_configs",
        "_document",
        "_model",
        "_open",
        "_units",
        "_unread",
        "_wire_format",
    )

    def __init__(
        self, document: Json, body: bytes, wire_format: str, model: str, cap: ModelCap, *, unread: bool
    ) -> None:
        self._unread = unread  # what is read is not in the document: it may be all that the model takes
        self._document, self._body, self._wire_format = document, body, wire_format
        self._model, self._cap = model, cap
        self._configs: list[Json] = [
            config for name in CONFIGS.intersection(document) if type(config := document[name]) is dict
        ]
        self._open: list[str] = []
        self._units: dict[str, int] = {}

    def bound(self) -> HoldBound:
        document = self._document
        beyond_body = writers = False
        template = 0
        if not _SPECIAL.isdisjoint(document):
            template = self._tools()
            rounds = bool(self._open) | self._has(_ROUNDS)
            writers = any(name.startswith(_WRITING_TOOLS) for name in self._open)
            writers |= self._has(_WRITERS) | self._compacts()
            stored = self._has(_STORED) | (type(document.get("prompt")) is dict)
            beyond_body = rounds or writers or stored
            self._has(_FEES)
        tokens_output = None if writers else self._output()
        tokens_input = self._input(template, beyond_body=beyond_body)
        tier = document.get("service_tier", document.get("serviceTier"))
        return HoldBound(
            tokens_input,
            tokens_output,
            self._units,
            self._cache_writes(),
            self._writes(),
            normal_tier(tier.get("type") if type(tier) is dict else tier)[0],
            normal_word(document.get("speed")),
            normal_word(document.get("inference_geo")),
            tuple(dict.fromkeys([name[:_NAME_MAX] for name in self._open[:_NAMES_MAX]]))
            if self._open
            else (),
        )

    def _cache_writes(self) -> tuple[str, ...]:
        """Where caching is asked for, what is asked for; elsewhere whatever the provider may do by itself."""
        if self._wire_format not in _CLAUDES:
            return _CACHE_TTLS
        if b'"cache_control"' not in self._body and b'"cachePoint"' not in self._body:
            return ()
        return _CACHE_TTLS if b'"1h"' in self._body else ("5m", "unknown")

    def _writes(self) -> tuple[str, ...]:
        """The modalities that the answer may have."""
        if self._wire_format == "openai_images":
            return ("", "image")
        said = self._document.get("modalities") or self._first("responseModalities", "response_modalities")
        if type(said) is not list:
            return ("", *sorted(_MODALITIES)) if self._wire_format in _GOOGLES else ("",)
        return ("", *sorted(_MODALITIES.intersection(str(name).lower() for name in said)))

    def _input(self, template: int, *, beyond_body: bool) -> dict[str, int] | None:
        """What is read, by modality. A call that reads what its body does not hold may fill the model's context with it."""
        if self._unread:
            return None if self._cap.input is None or beyond_body else {"": self._cap.input + template}
        media = RequestMedia(
            self._model, self._first("mediaResolution", "media_resolution") if self._configs else None
        )
        media.strip(self._document)
        self._open += media.stored
        text = template + text_tokens(self._text(media)) + (
            _GROK_TEMPLATE_TOKENS if "grok" in self._model else _TEMPLATE_TOKENS
        )  # fmt: skip
        if self._wire_format == "cohere_v1" and type(documents := self._document.get("documents")) is list:
            # One for a hundred documents of 500 tokens.
            self._units["search_unit"] = 1 + (len(documents) + text // 400) // 100
        if media.images and self._wire_format.startswith("cohere"):
            self._units["image"] = media.images
        if "audio" in media.tokens:
            self._units["audio_second"] = 1 + media.tokens["audio"] // AUDIO_TOKENS_PER_SECOND
        most = self._cap.input
        if beyond_body or media.stored:
            if most is None:
                return None
            text += most
        if not media.tokens:
            return {"": text}
        bounded = {
            kind: tokens if most is None else min(tokens, most) for kind, tokens in media.tokens.items()
        }
        return {"": text, **bounded}

    def _text(self, media: RequestMedia) -> bytes:
        """The body without its media, and with characters in place of their escapes: `\\u00e9` is one, and not six bytes."""
        if media.stripped:
            return _encoded(self._document)
        if b"\\" not in self._body or b"\\u" not in self._body:
            return self._body
        # This codec knows that escape and no other, and minds that a backslash may be escaped itself.
        escaped = self._body.decode("utf-8", "replace").encode("raw_unicode_escape")
        return escaped.decode("raw_unicode_escape").encode("utf-8", "surrogatepass")

    def _output(self) -> int | None:
        """What is written, in all answers together."""
        if self._wire_format in _NO_OUTPUT:
            return 0
        document = self._document
        if self._wire_format == "openai_images":
            return self._images()
        if self._wire_format == "cohere_v1" and "message" not in document and "messages" not in document:
            return 0  # embeddings and rankings
        limits = _counts(document, LIMITS.get(self._wire_format, _NONE))
        counts = _counts(document, _COUNTS)
        for config in self._configs:
            limits += _counts(config, CONFIG_LIMITS)
            counts += _counts(config, _CONFIG_COUNTS)
        most = max(limits) if limits else self._cap.output
        if most is None:
            return None
        if self._configs or not _BEYOND_LIMITS.isdisjoint(document):
            most += self._thinking(most) + self._predicted()
        prompts = document.get("prompt")
        if type(prompts) is list and prompts and type(prompts[0]) is not int:
            most *= len(prompts)
        return most * max([1, *counts])

    def _thinking(self, limit: int) -> int:
        """What is thought beyond the limit. Claude thinks within it, but for a budget above it (thinking between tools);
        Gemini counts its thoughts beside the answer."""
        thinking = self._document.get("thinking")
        budget = _count(thinking.get("budget_tokens")) if type(thinking) is dict else None
        beyond = budget if budget is not None and budget > limit else 0
        config = self._first("thinkingConfig", "thinking_config")
        if type(config) is dict:
            beyond += max([0, *_counts(config, _THINKING_BUDGETS)])
        return beyond

    def _predicted(self) -> int:
        """What of a prediction is not taken is billed as written."""
        prediction = self._document.get("prediction")
        return text_tokens(_encoded(prediction)) if type(prediction) is dict else 0

    def _images(self) -> int:
        number = max([1, *_counts(self._document, _COUNTS)])
        self._units["image"] = number
        size = self._document.get("size")
        width, _, height = size.partition("x") if type(size) is str else ("", "", "")
        pixels = (_count(width) or 0) * (_count(height) or 0)
        larger = -(-pixels // _IMAGE_OUTPUT_PIXELS)
        return number * (_IMAGE_OUTPUT_TOKENS * max(1, larger) + _PARTIAL_IMAGES_TOKENS)

    def _tools(self) -> int:
        """Names the tools that run at the provider; the tokens that describing tools to the model adds."""
        tools = self._document.get("tools")
        config = self._document.get("toolConfig")
        if type(config) is dict and type(config.get("tools")) is list:
            tools = config["tools"]
        if type(tools) is dict:
            tools = [tools]
        if type(tools) is not list or not tools:
            return 0
        described = 1
        for tool in tools:
            if type(tool) is not dict:
                continue
            kind = tool.get("type")
            kinds = [kind] if type(kind) is str else [] if "name" in tool else list(tool)
            if type(kind) is str and kind.startswith(_ANTHROPICS_CALLERS_TOOLS):
                described += 1
                continue
            self._open += [kind for kind in kinds if kind not in _CALLERS_TOOLS]
            if (
                kinds
                and kinds[0].startswith("web_search")
                and (most := _count(tool.get("max_uses"))) is not None
            ):
                self._units["web_search"] = self._units.get("web_search", 0) + most
        return described * _TOOLS_TEMPLATE_TOKENS if self._wire_format in _CLAUDES else 0

    def _compacts(self) -> bool:
        """Whether the provider may write a summary of the context on the way."""
        managed = self._document.get("context_management")
        edits = managed.get("edits") if type(managed) is dict else managed
        for edit in edits if type(edits) is list else ():
            if type(edit) is dict and str(edit.get("type")).startswith("compact"):
                self._open.append("context_management")
                return True
        return False

    def _has(self, names: frozenset[str]) -> bool:
        """Whether any of these fields is set; those that are, are named."""
        if names.isdisjoint(self._document):
            return False
        found = sorted(name for name in names.intersection(self._document) if self._document[name])
        self._open += found
        return bool(found)

    def _first(self, *names: str) -> Any:
        """The first of these fields in the configuration of the answer."""
        for config in self._configs:
            for name in names:
                if name in config:
                    return config[name]
        return None


def _encoded(value: Json) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError):  # half of a surrogate pair
        return json.dumps(value).encode()


def _counts(fields: Json, names: frozenset[str]) -> list[int]:
    return [count for name in names.intersection(fields) if (count := _count(fields[name])) is not None]


def _count(value: Any) -> int | None:
    """A number of things as JSON has it; Google also takes it as a text. None for what is none."""
    if type(value) is str:
        written = value.isascii() and value.isdigit() and len(value) <= 16
        value = int(value) if written else None
    elif type(value) is float:
        value = int(value) if value.is_integer() else None
    return min(value, COUNT_MAX) if type(value) is int and value >= 0 else None

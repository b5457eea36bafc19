"""A task put to a provider's model in the provider's own words, and its answer read: text, end and usage."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec

from project.gateway.conversation import Message, unknown_model
from project.gateway.exchange import Refused
from project.gateway.settings import ANTHROPIC, GatewaySettings, Upstream
from project.gateway.sse import EventSplitter, data_of
from project.gateway.upstream import UpstreamBroken, UpstreamClient, body_of, is_event_stream, refusal_of

Json = dict[str, Any]
ANTHROPIC_VERSION = b"2026-10-21"
ANTHROPIC_TOKENS_MAX = 1024  # where the caller sets no limit: that API has no default
_DETAIL_CHARACTERS_MAX = 500
_encode = msgspec.json.Encoder().encode


class Outcome(msgspec.Struct, frozen=True):
    """What came of a task. `usage` is the provider's own object, None where it sent none."""

    provider: str
    model: str
    output: str
    finish_reason: str | None
    usage: Json | None
    service_tier: str | None = None


def provider_of(model: str, settings: GatewaySettings) -> Upstream:
    """The upstream that has the model: Anthropic for `claude…` where it is set, else the OpenAI-shaped one. Else 404."""
    wanted = settings.anthropic if model.startswith("claude") else None
    found = wanted or settings.openai
    if found is None:
        raise unknown_model(model)
    return found


async def ask(
    client: UpstreamClient, upstream: Upstream, model: str, messages: list[Message], limit: int | None
) -> Outcome:
    """The whole answer at once. Raises Refused for whatever is no answer."""
    response = await _send(client, upstream, _request(upstream, model, messages, limit, stream=False))
    try:
        body = b"".join([chunk async for chunk in body_of(response, decoded=True)])
        answer = _ANSWER.decode(body)
    except UpstreamBroken as error:
        raise refusal_of(error, upstream) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(
            502, "upstream_garbled", f"The answer of {upstream.provider} cannot be read."
        ) from error
    finally:
        await response.aclose()
    return answer.outcome(upstream, model)


async def follow(
    client: UpstreamClient, upstream: Upstream, model: str, messages: list[Message], limit: int | None
) -> AsyncGenerator[str | Outcome]:
    """The answer as it comes: pieces of text, and last the Outcome. Raises Refused before the first piece."""
    response = await _send(client, upstream, _request(upstream, model, messages, limit, stream=True))
    try:
        if not is_event_stream(response):
            raise Refused(502, "upstream_garbled", f"{upstream.provider} did not answer with a stream.")
        progress, splitter = _Progress(upstream, model), EventSplitter()
        async for chunk in body_of(response, decoded=True):
            for event in splitter.feed(chunk):
                piece = progress.read(data_of(event))
                if piece:
                    yield piece
        yield progress.outcome()
    finally:
        await response.aclose()


def _request(
    upstream: Upstream, model: str, messages: list[Message], limit: int | None, *, stream: bool
) -> Json:
    said = [{"role": message.role, "content": _text_of(message)} for message in messages]
    request: Json = {"model": model, "stream": stream}
    if upstream.provider == ANTHROPIC:
        system = "\n\n".join(message["content"] for message in said if message["role"] == "system")
        request |= {"max_tokens": limit or ANTHROPIC_TOKENS_MAX}
        request |= {"system": system} if system else {}
        return request | {"messages": [message for message in said if message["role"] != "system"]}
    request |= {"max_completion_tokens": limit} if limit else {}
    request |= {"stream_options": {"include_usage": True}} if stream else {}
    return request | {"messages": said}


def _text_of(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text or "" for part in message.content or ())


async def _send(client: UpstreamClient, upstream: Upstream, request: Json) -> httpx.Response:
    anthropic = upstream.provider == ANTHROPIC
    headers = [
        (b"content-type", b"application/json"),
        (b"accept-encoding", b"identity"),
        *upstream.key_headers(),
    ]
    headers += [(b"anthropic-version", ANTHROPIC_VERSION)] if anthropic else []
    path = "/v1/messages" if anthropic else "/v1/chat/completions"
    response = await client.open(upstream, path, headers, _encode(request))
    if response.status_code < 400:
        return response
    try:
        raise await _refusal(response, upstream)
    finally:
        await response.aclose()


async def _refusal(response: httpx.Response, upstream: Upstream) -> Refused:
    """The provider's own error, in our form: its status, its words, its advice when to come back."""
    detail = f"{upstream.provider} answered {response.status_code}."
    try:
        body = b"".join([chunk async for chunk in body_of(response, decoded=True)])
        detail = _ERROR.decode(body).error.message[:_DETAIL_CHARACTERS_MAX] or detail
    except (UpstreamBroken, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # an error without words is one all the same
    status, after = response.status_code, response.headers.get("retry-after", "")
    retryable = status in (408, 429) or status >= 500
    return Refused(
        status,
        "upstream_error",
        detail,
        retryable=retryable,
        retry_after_s=int(after) if after.isdigit() else None,
    )


class _ErrorText(msgspec.Struct):
    message: str = ""


class _Error(msgspec.Struct):
    error: _ErrorText


class _Text(msgspec.Struct):
    """A message, a delta or a content block of either provider."""

    content: str | None = None
    text: str | None = None
    stop_reason: str | None = None


class _Choice(msgspec.Struct):
    message: _Text = msgspec.field(default_factory=_Text)
    delta: _Text = msgspec.field(default_factory=_Text)
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    """An answer of either provider, or one event of its stream: they share no field with two meanings that we read."""

    model: str | None = None
    choices: list[_Choice] = []
    content: list[_Text] = []
    stop_reason: str | None = None
    usage: Json | None = None
    delta: _Text | None = None
    message: "_Answer | None" = None
    error: Json | None = None
    service_tier: str | None = None

    def outcome(self, upstream: Upstream, model: str) -> Outcome:
        if upstream.provider == ANTHROPIC:
            output, reason = "".join(block.text or "" for block in self.content), self.stop_reason
        else:
            choice = self.choices[0] if self.choices else _Choice()
            output, reason = choice.message.content or "", choice.finish_reason
        return Outcome(upstream.provider, self.model or model, output, reason, self.usage, self.service_tier)


_ANSWER, _ERROR = msgspec.json.Decoder(_Answer), msgspec.json.Decoder(_Error)


class _Progress:
    """What is known of a streamed answer so far. Of each usage field the latest value that is not null holds."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        self._upstream, self._model = upstream, model
        self._pieces: list[str] = []
        self._reason: str | None = None
        self._usage: Json = {}
        self._service_tier: str | None = None
        self._ended = False

    def read(self, data: bytes) -> str:
        """Take in one event's data; the text that it adds. Raises UpstreamBroken for an error in mid-stream."""
        if not data or data == b"[DONE]":
            self._ended |= bool(data)
            return ""
        try:
            event = _ANSWER.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamBroken(f"{self._upstream.provider} sent an event that cannot be read") from error
        if event.error is not None:
            raise UpstreamBroken(f"{self._upstream.provider} sent an error in mid-stream")
        begun = event.message or event
        self._model = begun.model or self._model
        self._service_tier = begun.service_tier or self._service_tier
        self._usage |= {name: value for name, value in (begun.usage or {}).items() if value is not None}
        return self._text(event)

    def outcome(self) -> Outcome:
        """The whole of it. Raises UpstreamBroken when the stream ended before its end was said."""
        if not self._ended and self._reason is None:
            raise UpstreamBroken(f"{self._upstream.provider} ended its stream too early")
        return Outcome(
            self._upstream.provider, self._model, "".join(self._pieces), self._reason, self._usage or None,
            self._service_tier,
        )  # fmt: skip

    def _text(self, event: _Answer) -> str:
        choice = event.choices[0] if event.choices else None
        delta = choice.delta if choice is not None else event.delta or _Text()
        self._reason = (choice.finish_reason if choice is not None else delta.stop_reason) or self._reason
        piece = delta.content or delta.text or ""
        if piece:
            self._pieces.append(piece)
        return piece

"""Pass one call on to its provider, and the answer back byte for byte."""

import httpx
import msgspec

from metering.record_usage import record_usage
from project.gateway.exchange import Exchange
from project.gateway.google_call import query_for_google
from project.gateway.headers import Headers, for_caller, for_upstream, query_for_upstream
from project.gateway.settings import GOOGLE, Upstream
from project.gateway.sse import Json, UsageStripper
from project.gateway.upstream import (
    UpstreamBroken,
    UpstreamClient,
    body_of,
    can_decode,
    is_event_stream,
    refusal_of,
    refuses_our_key,
)

# An answer that is no stream goes out as one message up to this size: then it is settled before its first byte leaves, and
# its usage headers are known.
WHOLE_BYTES_MAX = 2**20
_JSON_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TRUE = b"true"


async def pass_through(
    exchange: Exchange, client: UpstreamClient, upstream: Upstream, body: bytes, *, chat: bool, streams: bool = False
) -> None:  # fmt: skip
    """Serve `exchange` from `upstream`; `streams`: piece by piece also where the answer is no event stream.

    Raises Refused before the answer began, UpstreamBroken after.
    """
    asked = with_usage_asked(body) if chat else None
    headers, query = _head_for(upstream, exchange)
    response = await client.open(
        upstream, exchange.scope["path"], headers, body if asked is None else asked, query
    )
    rewritten = asked is not None and is_event_stream(response) and can_decode(response)
    relay = _Relay(exchange, response.status_code, for_caller(response.headers.raw, rewritten=rewritten))
    try:
        if rewritten:
            await _relay_stripped(relay, response, upstream)
        elif is_event_stream(response) or (streams and response.status_code < 400):
            await _relay_stream(relay, response)
        else:
            await _relay_whole(relay, response, upstream)
    except UpstreamBroken as error:
        if relay.started:
            raise
        raise refusal_of(error, upstream) from error
    finally:
        await response.aclose()


def _head_for(upstream: Upstream, exchange: Exchange) -> tuple[Headers, bytes]:
    """The headers and the query that go up. Google answers in the form that it is asked for, so it is asked for JSON."""
    scope, own = exchange.scope, upstream.key_headers()
    query = scope.get("query_string", b"")
    if upstream.provider == GOOGLE:
        own += [(b"content-type", b"application/json"), (b"accept", b"*/*")]
        return for_upstream(scope["headers"], own), query_for_google(query)
    return for_upstream(scope["headers"], own), query_for_upstream(query)


def with_usage_asked(body: bytes) -> bytes | None:
    """The body of a streamed chat request with `stream_options.include_usage` set; None where nothing is to be changed.

    Every value but that one keeps its bytes: numbers are not read and written again.
    """
    try:
        fields = _JSON_OBJECT.decode(body)
        if bytes(fields.get("stream", b"")) != _TRUE:
            return None
        given = bytes(fields.get("stream_options", b"null"))
        options = {} if given == b"null" else _JSON_OBJECT.decode(given)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # wrong in a way that the upstream will say best
    if bytes(options.get("include_usage", b"")) == _TRUE:
        return None
    options["include_usage"] = msgspec.Raw(_TRUE)
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


class _Relay:
    """The answer to the caller. It starts with its first bytes: an upstream that breaks before them still gets a 502."""

    def __init__(self, exchange: Exchange, status: int, headers: Headers) -> None:
        self.exchange, self.started = exchange, False
        self._status, self._headers = status, headers

    async def write(self, body: bytes) -> None:
        if body:
            await self._start()
            await self.exchange.chunk(body)

    async def end(self, body: bytes = b"") -> None:
        await self._start()
        await self.exchange.end(body)

    async def _start(self) -> None:
        if not self.started:
            self.started = True
            await self.exchange.start(self._status, self._headers)


async def _relay_whole(relay: _Relay, response: httpx.Response, upstream: Upstream) -> None:
    chunks: list[bytes] = []
    size = 0
    async for chunk in body_of(response, decoded=False):
        chunks.append(chunk)
        size += len(chunk)
        if size > WHOLE_BYTES_MAX:
            await relay.write(b"".join(chunks))
            chunks.clear()
    body = b"".join(chunks)
    if not relay.started:
        refuses_our_key(upstream, response.status_code, body)
    await relay.end(body)


async def _relay_stream(relay: _Relay, response: httpx.Response) -> None:
    async for chunk in body_of(response, decoded=False):
        await relay.write(chunk)
    await relay.end()


async def _relay_stripped(relay: _Relay, response: httpx.Response, upstream: Upstream) -> None:
    """A chat stream whose usage we asked for and the caller did not: the usage goes to the meter, the rest to the caller."""

    def report(said: Json) -> None:
        record_usage(relay.exchange.scope, usage=said, model=said["model"], provider=upstream.provider)

    stripper = UsageStripper(report)
    async for chunk in body_of(response, decoded=True):
        await relay.write(stripper.feed(chunk))
    await relay.end(stripper.finish())

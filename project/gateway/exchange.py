"""One request and its answer, as the gateway's handlers see them: a thin object over the ASGI triple."""

import zlib
from typing import Any
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from metering.problem import Native, Refusal, problem_response
from metering.record_usage import call_of
from project.gateway.headers import Headers

JSON_TYPE: Headers = [(b"content-type", b"application/json")]
EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_encode = msgspec.json.Encoder().encode


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class Refused(Exception):
    """The request cannot be served; the refusal is its answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, title: str = "", retryable: bool = False,
        retry_after_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(detail)
        self.refusal = Refusal(
            status=status, code=code, title=title or code.replace("_", " ").capitalize(), detail=detail,
            retry_after_s=retry_after_s, retryable=retryable,
        )  # fmt: skip


def invalid_request(detail: str) -> Refused:
    """400: what is wrong with the request, for the one who wrote it."""
    return Refused(400, "invalid_request", detail, title="Invalid request")


class Exchange:
    """One call: its request, and the ways to answer it."""

    __slots__ = ("native", "receive", "scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send, native: Native | None) -> None:
        self.scope, self.receive, self.send, self.native = scope, receive, send, native

    async def body(self, bytes_max: int) -> bytes:
        """The whole request body, decompressed. Raises Refused (413, 415, 400) and ClientGone."""
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body = message.get("body", b"")
        else:
            body = await self._collect(message, bytes_max)
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        encoding = self.header(b"content-encoding")
        return body if encoding in (b"", b"identity") else _decompress(body, encoding, bytes_max)

    async def _collect(self, message: Any, bytes_max: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > bytes_max:
                raise _too_large(bytes_max)
            if not message.get("more_body", False):
                return b"".join(chunks)
            message = await self.receive()

    def header(self, name: bytes) -> bytes:
        """The value of a request header, b"" where it is missing."""
        for found, value in self.scope["headers"]:
            if found == name:
                return bytes(value)
        return b""

    async def start(self, status: int, headers: Headers) -> None:
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def chunk(self, body: bytes) -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer at once."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self.end(body)

    async def json(self, value: Any) -> None:
        """200 with `value` as JSON."""
        await self.answer(200, JSON_TYPE, _encode(value))

    async def refuse(self, refused: Refused) -> None:
        """The refusal as problem+json, on native routes with the error object that the official client reads."""
        call = call_of(self.scope)
        request_id = (
            call.request_id
            if call is not None
            else self.header(b"x-request-id").decode("latin-1") or uuid4().hex
        )
        status, headers, body = problem_response(refused.refusal, request_id, self.native)
        if call is not None:  # the meter names the request on every answer that it lets through
            headers = [(name, value) for name, value in headers if name != b"x-request-id"]
        await self.start(status, headers)
        await self.end(body)


def _too_large(bytes_max: int) -> Refused:
    return Refused(413, "request_too_large", f"The request body is longer than {bytes_max} bytes.")


def _decompress(body: bytes, encoding: bytes, bytes_max: int) -> bytes:
    """gzip and deflate; never more than `bytes_max`, however far a small body would unfold."""
    if encoding.lower() not in (b"gzip", b"deflate"):
        raise Refused(
            415, "unsupported_encoding", "Send the request body as it is, or compressed with gzip or deflate."
        )
    unfolding = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        plain = unfolding.decompress(body, bytes_max + 1)
    except zlib.error:
        raise invalid_request("The request body is not what its Content-Encoding says.") from None
    if len(plain) > bytes_max:
        raise _too_large(bytes_max)
    if not unfolding.eof:
        raise invalid_request("The compressed request body is cut short.")
    return plain

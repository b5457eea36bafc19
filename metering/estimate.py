"""What the request itself says, read once before the call: model, streaming, limits, end user, an input estimate.

Nothing here refuses anything. A body that cannot be read is the application's to refuse; we note that we could not read it.
"""

from typing import Any, Protocol

import msgspec

from metering.inflate import READABLE_ENCODINGS, inflate

BYTES_PER_TOKEN = 4
MESSAGE_OVERHEAD_TOKENS = 8  # role markers and priming, which no byte of the body stands for
_REQUEST_MAX = 8 * 1024 * 1024  # bytes after decompression, on the event loop: a bomb may not hold it up
_LARGE = 131_072  # bytes of a body from which on no value longer than `_VALUE_MAX` is built
_VALUE_MAX = 16_384
NAME_MAX = 200  # characters, as the column has
_COUNT_MAX = 2**53


class HasOutput(Protocol):
    """The part of a wire format that an estimate depends on."""

    @property
    def has_output(self) -> bool: ...


class RequestFacts(msgspec.Struct, frozen=True):
    """What a request says about itself. Unknown is None; `readable` is False where the body was no JSON object."""

    model: str | None = None
    stream: bool = False
    max_tokens: int | None = None  # the caller's own limit on output
    tokens_input_estimate: int = 0
    user_id: str | None = None  # end user of the customer; says nothing about who pays
    task_type: str | None = None
    readable: bool = False
    include_usage: bool = False  # stream_options.include_usage


class _Body(msgspec.Struct):
    """Fields of every request shape we know; all others are skipped without being built."""

    model: Any = None
    stream: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens: Any = None
    stream_options: Any = None
    user: Any = None
    metadata: Any = None
    safety_identifier: Any = None
    task_type: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_value = msgspec.json.Decoder().decode
_decode_unread = msgspec.json.Decoder(
    msgspec.defstruct(
        "_Unread", [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in _Body.__struct_fields__]
    )
).decode


def _decode_large(body: bytes) -> _Body:
    """The fields of a large body. A value that is long is none of ours: a million lists in its place would take a second to
    build, on the event loop. Raises ValueError where the model is such a value: it is said, and not what it is."""
    unread = _decode_unread(body)
    raw = {name: getattr(unread, name) for name in _Body.__struct_fields__}
    short = {name: value for name, value in raw.items() if len(memoryview(value)) <= _VALUE_MAX}
    if "model" not in short:
        raise ValueError("no model has such a name")
    return _Body(**{name: _decode_value(value) for name, value in short.items()})


def read_request(
    body: bytes, fmt: HasOutput, content_encoding: str = "", *, path_model: str | None = None
) -> RequestFacts:
    """The facts of a request body as it came in. Never raises, whatever it is given.

    A model that the path names goes before the body's, as it does at the providers whose paths name it.
    """
    plain = plain_body(body, content_encoding)
    if plain is None:
        return RequestFacts(model=path_model, tokens_input_estimate=estimate_tokens(len(body)))
    estimate = estimate_tokens(len(plain))
    try:
        fields = _decode(plain) if len(plain) < _LARGE else _decode_large(plain)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return RequestFacts(model=path_model, tokens_input_estimate=estimate)
    options, metadata = fields.stream_options, fields.metadata
    return RequestFacts(
        model=path_model or _name(fields.model),
        stream=fields.stream is True,
        max_tokens=_max_tokens(fields) if fmt.has_output else 0,
        tokens_input_estimate=estimate,
        user_id=_text(fields.user)
        or (_text(metadata.get("user_id")) if isinstance(metadata, dict) else None)
        or _text(fields.safety_identifier),
        task_type=_text(fields.task_type),
        readable=True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def plain_body(body: bytes, content_encoding: str) -> bytes | None:
    """The body as the application reads it; None where its compression cannot be undone, or would unfold too far."""
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    return inflate(body, _REQUEST_MAX) if encoding in READABLE_ENCODINGS else None


def estimate_tokens(size_bytes: int) -> int:
    """A figure on the high side for the input tokens of a JSON body of this size: bytes / 4 rounded up, plus overhead.

    English text runs at 4 to 5 bytes a token, and the body's punctuation and field names count along. Text in scripts of
    three bytes a character can exceed it, so this is an estimate and no bound. An empty body is 0.
    """
    return -(-size_bytes // BYTES_PER_TOKEN) + MESSAGE_OVERHEAD_TOKENS if size_bytes else 0


def _max_tokens(fields: _Body) -> int | None:
    for value in (fields.max_completion_tokens, fields.max_output_tokens, fields.max_tokens):
        if type(value) is int and 0 <= value <= _COUNT_MAX:
            return value
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _name(value: Any) -> str | None:
    """The name of a model. It is kept in many places, so one that is longer than any column is cut."""
    name = _text(value)
    return name if name is None or len(name) <= NAME_MAX else name[:NAME_MAX]

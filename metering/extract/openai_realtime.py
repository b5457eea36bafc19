"""OpenAI Realtime: the messages of one WebSocket. Each response says what it used, and they are added up.

The transcription of what the user says is done by another model and billed at its price, so it is a part of its own.
Read with `metering.tap.usage_of_messages`.
"""

from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading
from metering.extract.counts import text_or_none
from metering.extract.openai_transcription import count_audio
from metering.extract.shape_openai import read_openai
from metering.extract.tally import Tally
from pricing.usage import Usage

TRANSCRIPTION_MODEL_NOT_TOLD = "transcription_model_not_told"
UNTOLD_TRANSCRIPTION_MODEL = "input_audio_transcription"  # under this name a rate may be given

_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


class _Response(msgspec.Struct):
    id: Any = None
    usage: Any = None


class _Message(msgspec.Struct):
    type: Any = None
    session: Any = None
    response: Any = None
    usage: Any = None
    item_id: Any = None
    content_index: Any = None


_decode = msgspec.json.Decoder(_Message).decode


class OpenAIRealtime:
    name = "openai_realtime"
    version = 1
    extractor = "openai_realtime/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        """The usage that a single message says."""
        stream = self.open_stream(facts, provider)
        stream.on_event(b"", body)
        return stream.usage(1, complete=True)

    def open_stream(self, facts: RequestFacts, provider: str) -> "RealtimeStream":
        return RealtimeStream(Reading(self.extractor, facts, provider))


class RealtimeStream:
    """A connection never says that it is over: it ends where it ends."""

    interesting: tuple[bytes, ...] = (
        b"response.done", b"response.created", b"input_audio_transcription.completed", b"session.created", b"session.updated",
    )  # fmt: skip
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._tally = Tally()
        self._model: str | None = None
        self._transcription_model: str | None = None
        self._open = 0  # responses that have begun and did not say yet what they used

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            message = _decode(data)
        except UNREADABLE:
            return False
        if message.type in ("session.created", "session.updated"):
            self._note_session(message.session)
        elif message.type == "response.created":
            self._open += 1
        elif message.type == "response.done":
            self._add_response(message)
        elif message.type == _TRANSCRIBED:
            self._add_transcription(message, data)
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._tally.empty:
            return self._reading.nothing(self._model)
        return self._reading.reported(
            self._tally.counted(),
            {"reports": self._tally.reports},
            self._model,
            source="reported" if complete and self._open <= 0 else "reported_partial",
        )

    def _note_session(self, session: Any) -> None:
        if not isinstance(session, dict):
            return
        self._model = text_or_none(session.get("model")) or self._model
        model = _at(session, "audio", "input", "transcription", "model")
        model = model or _at(session, "input_audio_transcription", "model")
        self._transcription_model = text_or_none(model) or self._transcription_model

    def _add_response(self, message: _Message) -> None:
        response = message.response if isinstance(message.response, dict) else {}
        usage = response.get("usage")
        if usage is None:
            usage = message.usage  # as xAI has it
        if not isinstance(usage, dict):
            return  # began, and never said what it used
        self._open -= 1
        model = self._model or self._reading.facts.model or ""
        counted = read_openai(usage, self._reading.provider, model)
        self._tally.add(counted, "", "response", key=text_or_none(response.get("id")) or "", raw=usage)

    def _add_transcription(self, message: _Message, data: bytes) -> None:
        if not isinstance(message.usage, dict):
            return
        model = self._transcription_model
        if model is None:
            self._tally.repair(TRANSCRIPTION_MODEL_NOT_TOLD)
            model = UNTOLD_TRANSCRIPTION_MODEL
        item = text_or_none(message.item_id)
        key = f"{item}/{message.content_index}" if item else ""
        counted = count_audio(message.usage, data, self._reading.provider, model)
        self._tally.add(counted, model, "transcription", key=key, raw=message.usage)


def _at(document: Any, *path: str) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document

"""The demo models in the shape of Google's generateContent and streamGenerateContent."""

from typing import Any
from uuid import uuid4

import msgspec

from project.demo_models import IMAGE_TOKENS, Reply
from project.gateway.conversation import Content, Part, answer_to, decode, limit_of
from project.gateway.exchange import EVENT_STREAM, JSON_TYPE, Exchange, invalid_request
from project.gateway.google_call import GoogleCall

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class GoogleContent(msgspec.Struct):
    parts: list[Part] = []


class GenerationConfig(msgspec.Struct, rename="camel"):
    max_output_tokens: int | None = None
    candidate_count: int | None = None
    limit: int | None = msgspec.field(name="max_output_tokens", default=None)
    candidates: int | None = msgspec.field(name="candidate_count", default=None)


class GenerateRequest(msgspec.Struct, rename="camel"):
    contents: list[GoogleContent]
    system_instruction: GoogleContent | None = None
    generation_config: GenerationConfig | None = None
    # Google takes both spellings, and its own examples use this one.
    system: GoogleContent | None = msgspec.field(name="system_instruction", default=None)
    config: GenerationConfig | None = msgspec.field(name="generation_config", default=None)

    def parts(self) -> list[Content]:
        """The parts of the system instruction and of all contents."""
        system = self.system_instruction or self.system
        return [content.parts for content in ([system] if system is not None else []) + self.contents]


_REQUEST = msgspec.json.Decoder(GenerateRequest)


async def answer_generate(call: GoogleCall, exchange: Exchange, body: bytes) -> None:
    """Answer one call, streamed or not as its path and query say. Raises Refused for a request that is wrong."""
    request = decode(_REQUEST, body)
    if not any(content.parts for content in request.contents):
        raise invalid_request("contents must hold at least one part.")
    config = request.generation_config or request.config or GenerationConfig()
    if (config.candidate_count or config.candidates) not in (None, 1):
        raise invalid_request("The demo models give one candidate: candidateCount must be 1.")
    limit = limit_of("maxOutputTokens", config.max_output_tokens) or limit_of("maxOutputTokens", config.limit)
    said = answer_to(call.model, request.parts(), limit)
    answer = _Answer(call.model, said, media=_media(request.parts()))
    if not call.streams:
        await exchange.json(answer.whole())
    elif call.events:
        await _stream(exchange, EVENT_STREAM, [b"data: " + chunk + b"\r\n\r\n" for chunk in answer.chunks()])
    else:
        *chunks, last = answer.chunks()
        pieces = [b",\r\n" + chunk for chunk in (*chunks, last + b"\n]")]
        await _stream(exchange, JSON_TYPE, [b"[" + pieces[0].removeprefix(b",\r\n"), *pieces[1:]])


async def _stream(exchange: Exchange, headers: list[tuple[bytes, bytes]], pieces: list[bytes]) -> None:
    await exchange.start(200, headers)
    *others, last = pieces
    for piece in others:
        await exchange.chunk(piece)
    await exchange.end(last)


def _media(contents: list[Content]) -> int:
    """The tokens of parts that are no text; they all count as images."""
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return IMAGE_TOKENS * sum(part.text is None for part in parts)


class _Answer:
    """One answer, whole or token by token. Its counts run along with it, as at Google, and the last ones are final."""

    def __init__(self, model: str, said: Reply, *, media: int) -> None:
        self._said, self._media = said, media
        self._tail = {"modelVersion": model, "responseId": uuid4().hex}

    def whole(self) -> Json:
        return self._part(self._said.text, self._said.tokens_output)

    def chunks(self) -> list[bytes]:
        """The JSON of each chunk, one token in each."""
        return [_encode(self._part(token, number)) for number, token in enumerate(self._said.tokens, start=1)]

    def _part(self, text: str, tokens_so_far: int) -> Json:
        said = self._said
        candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
        if tokens_so_far == said.tokens_output:
            candidate["finishReason"] = "STOP" if said.finished else "MAX_TOKENS"
        return {"candidates": [candidate], "usageMetadata": self._usage(tokens_so_far), **self._tail}

    def _usage(self, tokens_output: int) -> Json:
        tokens_input = self._said.tokens_input
        by_modality = {"TEXT": tokens_input - self._media, "IMAGE": self._media}
        return {
            "promptTokenCount": tokens_input, "candidatesTokenCount": tokens_output,
            "totalTokenCount": tokens_input + tokens_output,
            "promptTokensDetails": [
                {"modality": modality, "tokenCount": count} for modality, count in by_modality.items() if count
            ],
        }  # fmt: skip

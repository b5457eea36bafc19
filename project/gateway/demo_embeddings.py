"""The embedding demo model in the shape of OpenAI's embeddings."""

import base64
import struct
from typing import Any, Literal

import msgspec

from project import tokenizer
from project.demo_models import EMBEDDING_DIMENSIONS, EMBEDDING_MODELS, embed
from project.gateway.conversation import decode
from project.gateway.exchange import Exchange, invalid_request

INPUTS_MAX = 2048  # as at OpenAI


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    def texts(self) -> list[str | list[int]]:
        """Each input: a text, or a text that the caller has cut into token numbers."""
        if isinstance(self.input, str):
            return [self.input]
        numbers = [item for item in self.input if isinstance(item, int)]
        if not numbers:
            return [item for item in self.input if not isinstance(item, int)]
        if len(numbers) < len(self.input):
            raise invalid_request("input must be texts, or token numbers, not both.")
        return [numbers]


_REQUEST = msgspec.json.Decoder(EmbeddingRequest)


async def answer_embeddings(exchange: Exchange, body: bytes) -> None:
    """Answer one call for embeddings. Raises Refused for a request that is wrong."""
    request = decode(_REQUEST, body)
    if request.model not in EMBEDDING_MODELS:
        raise invalid_request(f"The model {request.model!r} does not embed; demo-embed does.")
    dimensions = EMBEDDING_DIMENSIONS if request.dimensions is None else request.dimensions
    if not 1 <= dimensions <= EMBEDDING_DIMENSIONS:
        raise invalid_request(f"dimensions must lie between 1 and {EMBEDDING_DIMENSIONS}, not {dimensions}.")
    texts = request.texts()
    if not 1 <= len(texts) <= INPUTS_MAX or not all(texts):
        raise invalid_request(f"input must hold 1 to {INPUTS_MAX} inputs, none of them empty.")
    packed = request.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, dimensions, packed)}
        for index, text in enumerate(texts)
    ]
    used = sum(tokenizer.count(text) if isinstance(text, str) else len(text) for text in texts)
    usage = {"prompt_tokens": used, "total_tokens": used}
    await exchange.json({"object": "list", "data": data, "model": request.model, "usage": usage})


def _vector(text: str | list[int], dimensions: int, packed: bool) -> Any:
    """A list of numbers, or their 32-bit little-endian floats in base64, which the official client asks for."""
    vector = embed(text if isinstance(text, str) else " ".join(map(str, text)), dimensions)
    if not packed:
        return vector
    return base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode("ascii")

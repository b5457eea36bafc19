"""The built-in demo models: they answer without any upstream, and the same question always gets the same answer.

The words of an answer come from a hash of model and prompt; each word and each full stop is one token of
`project.tokenizer`, so the counts that are reported are true ones. An embedding is a normalised bag of hashed words: texts
that share words are near each other.
"""

import hashlib
import math
import zlib

import msgspec

from project import tokenizer

EMBEDDING_DIMENSIONS = 256
IMAGE_TOKENS = 85  # what a part of a message that is no text counts as
_VOCABULARY = (
    "river stone cloud paper light green seven copper north garden letter bridge winter signal harbor mirror "
    "window candle forest silver market engine valley planet summer island button school ticket number basket "
    "yellow orange violet circle square moment answer corner branch meadow tunnel anchor walnut pepper ginger "
    "carbon marble velvet cotton ribbon saddle hammer needle pocket puzzle rocket sunset temple kettle lemon"
)
_WORDS = _VOCABULARY.split()
_WORDS_PER_SENTENCE = 8


class DemoModel(msgspec.Struct, frozen=True):
    """A built-in model: an answer has between `words_min` and `words_min + words_spread` words before its limit cuts it."""

    name: str
    words_min: int
    words_spread: int


class Reply(msgspec.Struct, frozen=True):
    """What a demo model says: its output token by token, and whether it ended by itself (False: by `max_tokens`)."""

    tokens: list[str]
    finished: bool
    tokens_input: int

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    @property
    def tokens_output(self) -> int:
        return len(self.tokens)


CHAT_MODELS = {
    model.name: model
    for model in (
        DemoModel("demo-small", words_min=16, words_spread=32),
        DemoModel("demo-large", words_min=64, words_spread=64),
    )
}
EMBEDDING_MODELS = frozenset({"demo-embed"})
DEFAULT_MODEL = "demo-small"
PREFIX = "demo-"  # names that start so are never sent to an upstream


def reply(model: DemoModel, texts: list[str], *, images: int = 0, max_tokens: int | None = None) -> Reply:
    """The answer of `model` to the texts of a conversation, cut after `max_tokens` tokens (None: never)."""
    spoken = _speak(model, "\n".join(texts))
    tokens_input = sum(map(tokenizer.count, texts)) + images * IMAGE_TOKENS
    if max_tokens is None or len(spoken) <= max_tokens:
        return Reply(spoken, True, tokens_input)
    return Reply(spoken[:max_tokens], False, tokens_input)


def embed(text: str, dimensions: int = EMBEDDING_DIMENSIONS) -> list[float]:
    """The embedding of `text`: `dimensions` numbers whose squares sum to 1."""
    vector = [0.0] * dimensions
    for word in text.lower().split():
        hashed = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        vector[(hashed >> 1) % dimensions] += 1.0 if hashed & 1 else -1.0
    length = math.sqrt(sum(x * x for x in vector))
    if length == 0:
        return [1.0, *vector[1:]]
    return [x / length for x in vector]


def _speak(model: DemoModel, prompt: str) -> list[str]:
    """Sentences of whole words, as tokens: a word with the space in front of it, or a full stop."""
    seed = hashlib.shake_256(f"{model.name}\n{prompt}".encode("utf-8", "surrogatepass"))
    noise = seed.digest(1 + model.words_min + model.words_spread)
    spoken: list[str] = []
    count = model.words_min + noise[0] % (model.words_spread + 1)
    for place, byte in enumerate(noise[1 : 1 + count]):
        word = _WORDS[byte % len(_WORDS)]
        if place % _WORDS_PER_SENTENCE == 0:
            if place:
                spoken.append(".")
            word = word.capitalize()
        spoken.append(f" {word}" if place else word)
    spoken.append(".")
    return spoken

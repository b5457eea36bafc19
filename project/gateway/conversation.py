"""What the demo models read of a request: the texts of a conversation and how many of its parts are no text."""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from project.demo_models import CHAT_MODELS, EMBEDDING_MODELS, PREFIX, DemoModel, Reply, reply
from project.gateway.exchange import Refused, invalid_request

T = TypeVar("T")


class Part(msgspec.Struct):
    """A piece of a message: text, or something else (an image, a tool result) that counts a fixed number of tokens."""

    text: str | None = None


Content = str | list[Part] | None


class Message(msgspec.Struct):
    role: str = "user"
    content: Content = None


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type. Raises Refused (400), which says where it is wrong."""
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid_request(f"The request body cannot be read: {error}") from None
    except RecursionError:
        raise invalid_request("The request body is nested too deeply.") from None


def limit_of(name: str, value: int | None) -> int | None:
    """A limit on output tokens as given. Raises Refused (400) when it is below 1."""
    if value is not None and value < 1:
        raise invalid_request(f"{name} must be at least 1, not {value}.")
    return value


def answer_to(model: str, contents: Iterable[Content], max_tokens: int | None) -> Reply:
    """What a demo model says to these contents; all the text there is counts as input."""
    texts: list[str] = []
    images = 0
    for content in contents:
        if isinstance(content, str):
            texts.append(content)
            continue
        for part in content or ():
            if part.text is None:
                images += 1
            else:
                texts.append(part.text)
    return reply(chat_model(model), texts, images=images, max_tokens=max_tokens)


def is_demo(model: object) -> bool:
    """Whether a request's `model` is one of the built-in ones. Raises Refused (404) for a name of theirs that none has.

    Names that start with `demo-` never go upstream: they are priced as the demo models are.
    """
    if not isinstance(model, str) or not model.startswith(PREFIX):
        return False
    if model in CHAT_MODELS or model in EMBEDDING_MODELS:
        return True
    raise unknown_model(model)


def unknown_model(model: object) -> Refused:
    """404, or 400 where the request names no model at all."""
    if not isinstance(model, str) or not model:
        return invalid_request("model is missing.")
    return Refused(
        404, "model_not_found", f"The model {model!r} does not exist here.", title="Model not found"
    )


def chat_model(name: str) -> DemoModel:
    """The demo model of that name. Raises Refused (400) for the one that only embeds."""
    found = CHAT_MODELS.get(name)
    if found is None:
        raise invalid_request(
            f"The model {name!r} does not answer here; {' and '.join(sorted(CHAT_MODELS))} do."
        )
    return found


def openai_usage(said: Reply) -> dict[str, Any]:
    """The usage object of OpenAI's chat completions."""
    return {
        "prompt_tokens": said.tokens_input,
        "completion_tokens": said.tokens_output,
        "total_tokens": said.tokens_input + said.tokens_output,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }

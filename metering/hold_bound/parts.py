"""What of a request is not text: images, sound, films and documents in its messages, and what it only points to.

The walk keeps to where providers look for such parts. What merely resembles one (in the arguments of a tool, in a schema) is
text to them and to us.
"""

from collections.abc import Callable
from typing import Any

from metering.hold_bound.media import data_tokens, image_tokens

Json = dict[str, Any]

# Fields of a request that hold messages or parts of them.
_ROOTS = frozenset(
    {
        "messages", "contents", "input", "inputs", "system", "systemInstruction", "system_instruction", "prompt", "content",
        "document", "image", "images",
    }
)  # fmt: skip
# Fields of a message, or of a part of one, that hold further parts.
_NESTED = frozenset(
    {
        "content",
        "parts",
        "output",
        "tool_result",
        "toolResult",
        "functionResponse",
        "function_response",
        "guardContent",
    }
)


class RequestMedia:
    """The media of one request. `strip` takes their data out of the document that it is given."""

    __slots__ = ("_detail", "_model", "images", "stored", "stripped", "tokens")

    def __init__(self, model: str, detail: object = None) -> None:
        self._model, self._detail = model, detail
        self.tokens: dict[str, int] = {}  # by modality
        self.images = 0
        self.stored: list[str] = []  # fields that point to what only the provider has
        self.stripped = False

    def strip(self, document: Json) -> None:
        """Count what is found, and leave an empty text in its place."""
        for name in _ROOTS.intersection(document):
            value = document[name]
            if name in ("image", "images"):
                _PARTS[name](self, document, name)
            elif type(value) is not str:
                self._walk(value)

    def _walk(self, value: Any) -> None:
        if type(value) is list:
            for item in value:
                if type(item) is dict or type(item) is list:
                    self._walk(item)
        elif type(value) is dict:
            for key in _MATTERS.intersection(value):
                found = value[key]
                if key in _NESTED:
                    if type(found) is not str:
                        self._walk(found)
                else:
                    _PARTS[key](self, value, key)
            if value.get("type") == "item_reference":
                self.stored.append("item_reference")

    def _add(self, modality: str, tokens: int) -> None:
        self.tokens[modality] = self.tokens.get(modality, 0) + tokens
        self.images += modality == "image"

    def _data(self, holder: Json, key: str, mime: str, *, detail: object = None, fps: float = 1) -> None:
        """Base64 in `holder[key]`, with or without the head of a data URL in front of it."""
        data = holder[key]
        head, comma, _ = data[:256].partition(",")
        if comma and head.startswith("data:"):
            mime = head[5:].partition(";")[0] or mime
        size = len(data) * 3 // 4
        self._add(*data_tokens(self._model, mime, size, detail=detail or self._detail, fps=fps))
        holder[key] = ""
        self.stripped = True

    def _at(self, holder: Json, key: str, mime: str, *, detail: object = None) -> None:
        """A text that is data, or an address. An image at an address is one image; anything else may be of any length."""
        text = holder.get(key)
        if type(text) is not str:
            return
        if text.startswith("data:"):
            self._data(holder, key, mime, detail=detail)
        elif mime.startswith("image/"):
            self._add("image", image_tokens(self._model, detail or self._detail))
        elif text:
            self.stored.append(key)

    def _url(self, holder: Json, key: str) -> None:
        """`image_url`, `video_url`, `audio_url`, `file_url`: an address, or an object with one."""
        mime = "image/*" if key.startswith("image") else "application/*"
        value = holder[key]
        if type(value) is dict:
            self._at(value, "url", mime, detail=value.get("detail"))
        else:
            self._at(holder, key, mime, detail=holder.get("detail"))

    def _input_audio(self, holder: Json, key: str) -> None:
        value = holder[key]
        if type(value) is dict and type(value.get("data")) is str:
            self._data(value, "data", f"audio/{value.get('format')}")
        elif type(value) is str:  # Mistral's: data, or an address
            self._at(holder, key, "audio/*")

    def _spoken_before(self, holder: Json, key: str) -> None:
        """An earlier answer in sound, by its id; or Bedrock's sound."""
        value = holder[key]
        if type(value) is dict and "id" in value:
            self.stored.append("audio")
        else:
            self._bedrock(holder, key)

    def _file(self, holder: Json, key: str) -> None:
        value = holder[key]
        if type(value) is dict:
            if value.get("file_id"):
                self.stored.append("file_id")
            if type(value.get("file_data")) is str:
                self._data(value, "file_data", "application/pdf")

    def _file_data(self, holder: Json, key: str) -> None:
        """OpenAI's: base64. Google's of the same name is an address."""
        value = holder[key]
        if type(value) is str:
            self._data(holder, key, "application/pdf")
        elif type(value) is dict:
            mime = value.get("mimeType", value.get("mime_type"))
            self._google_uri(mime if type(mime) is str else "")

    def _google_uri(self, mime: str) -> None:
        if mime.startswith("image/"):
            self._add("image", image_tokens(self._model, self._detail))
        else:
            self.stored.append("fileData")

    def _stored(self, holder: Json, key: str) -> None:
        if holder[key]:
            self.stored.append(key)

    def _inline(self, holder: Json, key: str) -> None:
        value = holder[key]
        if type(value) is not dict or type(value.get("data")) is not str:
            return
        mime = value.get("mimeType", value.get("mime_type"))
        metadata = holder.get("videoMetadata", holder.get("video_metadata"))
        fps = metadata.get("fps") if type(metadata) is dict else 1
        resolution = holder.get("mediaResolution", holder.get("media_resolution"))
        self._data(
            value, "data", mime if type(mime) is str else "", fps=fps if isinstance(fps, (int, float)) else 1,
            detail=resolution.get("level") if type(resolution) is dict else None,
        )  # fmt: skip

    def _source(self, holder: Json, key: str) -> None:
        """Anthropic's: data, an address, a file, or a text that counts as one."""
        value = holder[key]
        if type(value) is not dict:
            return
        kind, mime = value.get("type"), value.get("media_type")
        mime = mime if type(mime) is str else f"{holder.get('type')}/*"
        if kind == "base64" and type(value.get("data")) is str:
            self._data(value, "data", mime)
        elif kind == "url" and holder.get("type") == "image":
            self._at(value, "url", "image/*")
        elif kind in ("url", "file"):
            self.stored.append(f"source.{kind}")
        elif kind == "content":
            self._walk(value.get("content"))

    def _bedrock(self, holder: Json, key: str) -> None:
        """`{"image": {"format": "png", "source": {"bytes": …}}}`, and the same for documents, films and sound."""
        value = holder[key]
        if type(value) is str:  # an image as other APIs take it: data or an address
            self._bare_image(holder, key)
            return
        source = value.get("source") if type(value) is dict else None
        if type(source) is not dict:
            return
        kind = "application" if key == "document" else key
        if type(source.get("bytes")) is str:
            self._data(source, "bytes", f"{kind}/{value.get('format')}")
        elif key == "image":
            self._add("image", image_tokens(self._model))
        elif "text" not in source and "content" not in source:
            self.stored.append(key)

    def _bare_image(self, holder: Json, key: str) -> None:
        text = holder[key]
        if text.startswith(("http:", "https:")):
            self._add("image", image_tokens(self._model, self._detail))
        else:
            self._data(holder, key, "image/*")

    def _images(self, holder: Json, key: str) -> None:
        """Ollama's and Cohere's: a list of base64 or data URLs."""
        images = holder[key]
        if type(images) is not list:
            return
        for place, image in enumerate(images):
            if type(image) is str:
                self._add("image", image_tokens(self._model))
                images[place] = ""
                self.stripped = True
            else:
                self._walk(image)

    def _result(self, holder: Json, key: str) -> None:
        """An image that an earlier answer made."""
        if holder.get("type") == "image_generation_call" and type(holder[key]) is str:
            self._data(holder, key, "image/*")


_PARTS: dict[str, Callable[[RequestMedia, Json, str], None]] = {
    **dict.fromkeys(("image_url", "video_url", "audio_url", "file_url", "document_url"), RequestMedia._url),
    **dict.fromkeys(("file_id", "fileId"), RequestMedia._stored),
    **dict.fromkeys(("inlineData", "inline_data"), RequestMedia._inline),
    **dict.fromkeys(("image", "video", "document"), RequestMedia._bedrock),
    "input_audio": RequestMedia._input_audio,
    "audio": RequestMedia._spoken_before,
    "file": RequestMedia._file,
    "file_data": RequestMedia._file_data,
    "fileData": RequestMedia._file_data,
    "source": RequestMedia._source,
    "images": RequestMedia._images,
    "result": RequestMedia._result,
}
_MATTERS = _NESTED | _PARTS.keys()

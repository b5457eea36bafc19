"""How many tokens an image, sound, film or document can make at the most. Figures are the providers' documented ones."""

from metering.extract.tiers import normal_word

LOW_DETAIL_TOKENS = 2_833  # gpt-4o-mini; 85 and less elsewhere
# One image in the detail that a caller may ask for, by the beginning of the model's name; the first that fits.
_IMAGE_TOKENS = (
    ("gpt-4o-mini", 48_169),  # 2,833 and 5,667 for each of 8 tiles
    ("gpt-5.4", 25_000),  # 10,000 patches of an original, times 2.46 for the smallest model
    ("gpt-5.5", 25_000),
    ("gpt-5.6", 25_000),
    ("gpt-4", 4_000),  # 1,536 patches times 2.46; 85 and 170 for each of 8 tiles where there are tiles
    ("gpt-5", 4_000),
    ("o1", 4_000),
    ("o3", 4_000),
    ("o4", 4_000),
    ("claude-3", 1_600),  # (width × height) / 750, of at most 1.2 megapixels
    ("claude-sonnet-4", 1_600),
    ("claude-haiku-4", 1_600),
    ("claude-opus-4-7", 5_000),  # 2,576 pixels on the long edge from here on
    ("claude-opus-4-8", 5_000),
    ("claude-opus-4", 1_600),
    ("claude", 5_000),
    ("gemini-1", 5_160),  # 258 for each of 20 tiles
    ("gemini-2", 5_160),
    ("gemini", 2_240),  # the highest resolution that there is
    ("demo-", 85),
)
_IMAGE_TOKENS_UNKNOWN = 48_169
_GEMINI_RESOLUTIONS = {"media_resolution_low": 280, "media_resolution_medium": 560}

# At most 32 tokens a second, and no fewer bytes a second than these formats have: 8,000 bits in MP3, 6,400 bits in WAV.
_AUDIO_BYTES_PER_TOKEN = {
    "wav": 25,
    "x-wav": 25,
    "wave": 25,
    "mp3": 25,
    "mpeg": 25,
    "mpga": 25,
    "pcm16": 25,
    "pcm": 25,
    "l16": 25,
}
AUDIO_BYTES_PER_SECOND, AUDIO_TOKENS_PER_SECOND = 800, 32
_VIDEO_BYTES_PER_TOKEN = (
    2  # 290 tokens a second at one frame a second; a film of a still page has 600 bytes a second
)


def image_tokens(model: str, detail: object = None) -> int:
    """The most that one image makes. `detail` is OpenAI's, or Google's `mediaResolution`."""
    if isinstance(detail, str):
        if detail == "low":
            return LOW_DETAIL_TOKENS
        known = _GEMINI_RESOLUTIONS.get(normal_word(detail) or "")
        if known is not None and model.startswith("gemini"):
            return known
    name = model.rpartition("/")[2]
    return next((most for start, most in _IMAGE_TOKENS if name.startswith(start)), _IMAGE_TOKENS_UNKNOWN)


def data_tokens(
    model: str, mime: str, size: int, *, detail: object = None, fps: float = 1
) -> tuple[str, int]:
    """Modality and most tokens of `size` bytes of that kind. A format that is not known makes one token a byte: a second of
    silence is a few bytes in some. A document makes one a byte, and one image for a page that is nothing else."""
    kind, _, form = mime.lower().partition(";")[0].strip().partition("/")
    if kind == "image":
        return "image", image_tokens(model, detail)
    if kind == "audio":
        return "audio", 1 + size // _AUDIO_BYTES_PER_TOKEN.get(form, 1)
    if kind == "video":
        return "video", 1 + int(size / _VIDEO_BYTES_PER_TOKEN * max(1.0, fps))
    return "document", size + image_tokens(model, detail)

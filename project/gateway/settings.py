"""Where the gateway sends what the demo models do not answer: one upstream per provider, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlsplit

Provider = Literal["openai", "anthropic", "google"]

OPENAI: Provider = "openai"
ANTHROPIC: Provider = "anthropic"
GOOGLE: Provider = "google"
DEMO = "demo"
_VERSIONS = ("/v1beta", "/v1")  # that a base URL may end in; our paths begin with one of them
_IN_A_PATH = "/:@!$&'()*+,;="  # besides letters and digits


class InvalidSetting(ValueError):
    """A variable of the environment has a value that cannot be used; the text names both."""


@dataclass(frozen=True)
class Upstream:
    """A provider's API: `url` as its official client takes it, with or without the version at its end."""

    provider: Provider
    url: str
    key: str = field(default="", repr=False)

    def url_of(self, path: str, query: bytes = b"") -> str:
        """The address for one of our paths, decoded as the server hands it over: a `?` in a model's name is no query."""
        base = self.url.rstrip("/")
        version = next((version for version in _VERSIONS if base.endswith(version)), "")
        address = base.removesuffix(version) + quote(path, safe=_IN_A_PATH, errors="replace")
        return f"{address}?{query.decode('latin-1')}" if query else address

    def key_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that carry our key; none where no key is set (a local model server)."""
        if not self.key:
            return []
        if self.provider == ANTHROPIC:
            return [(b"x-api-key", self.key.encode())]
        if self.provider == GOOGLE:
            return [(b"x-goog-api-key", self.key.encode())]
        return [(b"authorization", b"Bearer " + self.key.encode())]


@dataclass(frozen=True)
class GatewaySettings:
    """Everything that the gateway takes from outside. Times in seconds, sizes in bytes."""

    openai: Upstream | None = None
    anthropic: Upstream | None = None
    google: Upstream | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 600.0  # the official clients wait as long for a first byte
    request_bytes_max: int = 32 * 2**20  # the limit of Anthropic's Messages API

    def upstream_of(self, provider: Provider) -> Upstream | None:
        """The upstream of a provider; None where its URL is not set."""
        return {OPENAI: self.openai, ANTHROPIC: self.anthropic, GOOGLE: self.google}[provider]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "GatewaySettings":
        """Read UPSTREAM_OPENAI_URL/_KEY and the same for ANTHROPIC and GOOGLE; a provider without a URL is off.

        Raises InvalidSetting when a URL is no http(s) address, or a key stands without its URL.
        """
        return cls(
            openai=_upstream(environ, OPENAI),
            anthropic=_upstream(environ, ANTHROPIC),
            google=_upstream(environ, GOOGLE),
        )


def _upstream(environ: Mapping[str, str], provider: Provider) -> Upstream | None:
    name = f"UPSTREAM_{provider.upper()}"
    url, key = environ.get(f"{name}_URL", "").strip(), environ.get(f"{name}_KEY", "").strip()
    if not url:
        if key:
            raise InvalidSetting(
                f"{name}_KEY is set but {name}_URL is not: nothing would ever be sent with that key"
            )
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidSetting(f"{name}_URL={url!r} is not an http or https address without a query")
    if not key.isascii() or not key.isprintable():
        raise InvalidSetting(f"{name}_KEY holds characters that a header cannot carry")
    return Upstream(provider, url, key)

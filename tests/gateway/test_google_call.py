"""What Google's paths and queries say, and what of it a caller may say to Google."""

import pytest

from project.gateway.google_call import GoogleCall, query_for_google


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_a_path_says_model_and_verb(version: str) -> None:
    base = f"/{version}/models/gemini-2.5-pro"
    assert GoogleCall.of(f"{base}:generateContent") == GoogleCall("gemini-2.5-pro", False, False)
    assert GoogleCall.of(f"{base}:streamGenerateContent") == GoogleCall("gemini-2.5-pro", True, False)
    assert GoogleCall.of(f"{base}:streamGenerateContent", b"$alt=sse") == GoogleCall(
        "gemini-2.5-pro", True, True
    )


@pytest.mark.parametrize(
    "path",
    [
        "/v1beta/models/x:countTokens", "/v1beta/models/x", "/v1beta/models/:generateContent", "/v1beta/models",
        "/v1beta/models/a/b:generateContent", "/v1alpha/models/x:generateContent", "/v1/models/x:generateContent/",
        "/v1/models/x:generateContent\n", "/x/v1/models/x:generateContent", "/v1/messages", "",
    ],
)  # fmt: skip
def test_other_paths_are_not_served(path: str) -> None:
    assert GoogleCall.of(path) is None


@pytest.mark.parametrize(
    ("query", "goes_up"),
    [
        (b"", b""),
        (b"alt=sse", b"alt=sse"),
        (b"%24alt=sse&prettyPrint=false", b"alt=sse&prettyPrint=false"),
        (b"%61lt=sse", b"alt=sse"),
        (b"alt=sse&key=tg_live_1&access_token=x&oauth_token=y&$key=z&upload_protocol=raw", b"alt=sse"),
        # Each of these would have the answer written without its usage, or in a way that cannot be read.
        (b"fields=candidates", b""),
        (b"$fields=candidates", b""),
        (b"%66ields=candidates&alt=sse", b"alt=sse"),
        (b"alt=proto", b""),
        (b"$alt=proto", b""),
        (b"alt=sse&$alt=proto", b"alt=sse"),
        (b"$alt=json%3Benum-encoding%3Dint", b""),
        (b"$alt=json;enum-encoding=int", b""),
        (b"alt=media", b""),
        (b"callback=f&$callback=f&$.xgafv=2&$outputDefaults=true", b""),
        (b"alt=SSE&alt&=&&&alt=sse%0d%0aX:1&\xff=\xff", b""),
    ],
)
def test_only_what_leaves_the_usage_readable_goes_up(query: bytes, goes_up: bytes) -> None:
    assert query_for_google(query) == goes_up

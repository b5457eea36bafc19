"""`manage.py rate_response`: a kept response, explained to the last digit."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from pricing.catalog import import_prices

pytestmark = pytest.mark.django_db

MESSAGE = {
    "type": "message", "model": "claude-sonnet-4-5-20250929",
    "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
        "cache_read_input_tokens": 5000, "output_tokens": 500, "service_tier": "standard",
    },
}  # fmt: skip
STREAM = """data: {"object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}],"usage":null}

data: {"object":"chat.completion.chunk","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}

data: [DONE]

"""


@pytest.fixture(autouse=True)
def _prices(db: None) -> None:
    import_prices("cost")


def rated(tmp_path: Path, response: Any, *options: str) -> dict[str, Any]:
    path = tmp_path / "response"
    path.write_bytes(response.encode() if isinstance(response, str) else json.dumps(response).encode())
    out = io.StringIO()
    call_command("rate_response", str(path), *options, stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def test_each_line_is_shown_with_its_arithmetic(tmp_path: Path) -> None:
    found = rated(tmp_path, MESSAGE, "--at", "2026-11-25T12:00:00Z")
    assert (found["wire_format"], found["framing"]) == ("anthropic_messages", "json")
    lines = {line["unit"]: (line["quantity"], line["unit_price"], line["amount"]) for line in found["lines"]}
    assert lines == {
        "in_uncached": (10, "0.000003", "0.00003"),  # 10 × 3 per million
        "in_cache_read": (5000, "0.0000003", "0.0015"),
        "in_cache_write_5m": (2000, "0.00000375", "0.0075"),
        "in_cache_write_1h": (1000, "0.000006", "0.006"),
        "out_visible": (500, "0.000015", "0.0075"),
    }
    # 0.00003 + 0.0015 + 0.0075 + 0.006 = 0.01503, and 0.0075
    assert (found["amount_input"], found["amount_output"], found["total"]) == ("0.01503", "0.0075", "0.02253")
    assert all(isinstance(line["rate_id"], int) for line in found["lines"])
    assert (found["usage_source"], found["pricing_status"], found["consistency"]) == (
        "reported",
        "priced",
        "ok",
    )


def test_a_recorded_stream_is_read_as_well(tmp_path: Path) -> None:
    found = rated(tmp_path, STREAM)
    assert (found["wire_format"], found["framing"], found["buckets"]) == (
        "openai_chat",
        "sse",
        {"in_uncached": 8, "out_visible": 2},
    )
    assert found["total"] == "0.00004"  # 8 × 2.50 + 2 × 10 per million


def test_the_rates_are_those_of_the_instant(tmp_path: Path) -> None:
    body = {
        "model": "o3",
        "object": "chat.completion",
        "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000},
    }
    assert [rated(tmp_path, body, "--at", day)["total"] for day in ("2025-05-01", "2025-12-01")] == [
        "10",
        "2",
    ]


def test_a_rule_that_fired_is_named(tmp_path: Path) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "total_tokens": 160,
        "completion_tokens_details": {"reasoning_tokens": 50},
    }
    found = rated(tmp_path, {"object": "chat.completion", "model": "gpt-4o", "usage": usage})
    assert found["rules"] == ["reasoning_additive"]
    assert found["consistency"] == "repaired:reasoning_additive"


def test_what_has_no_price_is_unpriced_and_not_nothing(tmp_path: Path) -> None:
    found = rated(
        tmp_path,
        {
            "object": "chat.completion",
            "model": "stranger-1",
            "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
        },
    )
    assert (found["total"], found["pricing_status"], found["unpriced"]) == (
        None,
        "unpriced",
        ["in_uncached", "out_visible"],
    )


def test_the_model_asked_for_stands_in_where_the_response_names_none(tmp_path: Path) -> None:
    body = {
        "object": "chat.completion",
        "usage": {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4},
    }
    found = rated(tmp_path, body, "--model", "gpt-4o", "--provider", "openai")
    assert (found["model"], found["total"]) == ("gpt-4o", "0.00001")


@pytest.mark.parametrize("content", ["", "   ", "hello", "<html>", "{", "\x00\x01\x02", "7"])
def test_what_is_no_response_ends_with_code_2_and_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(CommandError) as raised:
        rated(tmp_path, content)
    assert raised.value.returncode == 2
    assert "response: " in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--at", "yesterday"), "--at yesterday: must be an instant"),
        (("--at", "2026-13-45"), "--at 2026-13-45: must be an instant"),
        (("--book", "nobody's"), "there is no such price book; there are: cost"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_says_so(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CommandError, match=said) as raised:
        rated(tmp_path, MESSAGE, *options)
    assert raised.value.returncode == 2


def test_a_file_that_is_not_there_ends_with_code_2() -> None:
    with pytest.raises(CommandError, match="No such file") as raised:
        call_command("rate_response", "/nowhere/response.json")
    assert raised.value.returncode == 2

"""What the official clients send when they repeat a call, and what comes of it.

Their pinned versions make a key for every logical call and keep it over its retries, but send it only where the caller sets
the header: so two calls never share one by accident, and a caller that sets it gets repeats that are charged once.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import anthropic
import openai
import pytest

from tests.servers import WebProcess

QUESTION: Any = [{"role": "user", "content": "Hallo"}]


def events_of(server: WebProcess, user: str) -> list[dict[str, Any]]:
    return server.database.rows(f"select * from usage_events where user_id = '{user}' order by created_at")


def test_two_equal_calls_of_one_client_share_no_key_and_are_charged_each(
    server: WebProcess, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    chat, message = f"mia-{uuid4().hex}", f"kim-{uuid4().hex}"
    for _ in range(2):
        openai_client.chat.completions.create(model="gpt-4o-mini", messages=QUESTION, user=chat)
        anthropic_client.messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=QUESTION, metadata={"user_id": message}
        )
    for user in (chat, message):
        found = events_of(server, user)
        assert [event["idempotency_key"] for event in found] == ["", ""]
        assert found[0]["charge_total"] == found[1]["charge_total"] > 0


def test_a_call_that_the_client_repeats_by_itself_under_a_given_key_is_charged_once(
    server: WebProcess, openai_client: openai.OpenAI
) -> None:
    user = f"mia-{uuid4().hex}"
    again = openai_client.with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError):
        again.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, user=user,
            extra_headers={"Idempotency-Key": user, "x-fault": "500"},
        )  # fmt: skip
    for _ in range(2):
        again.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, user=user, extra_headers={"Idempotency-Key": user}
        )
    found = events_of(server, user)
    assert [event["status"] for event in found] == ["error"] * 3 + ["ok", "ok"]
    charges = [event["charge_total"] for event in found]
    assert charges[:3] == [0, 0, 0] and charges[3] > 0 and charges[4] == 0
    assert Decimal(str(found[4]["cost_total"])) == Decimal(str(found[3]["cost_total"])) > 0


def test_a_key_with_another_payload_is_an_error_that_the_clients_know_and_do_not_repeat(
    server: WebProcess, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    key = uuid4().hex
    headers = {"Idempotency-Key": key}
    openai_client.embeddings.create(model="text-embedding-3-small", input="a", extra_headers=headers)
    with pytest.raises(openai.ConflictError) as chat:
        openai_client.with_options(max_retries=2).embeddings.create(
            model="text-embedding-3-small", input="b", extra_headers=headers
        )
    assert chat.value.code == "idempotency_conflict"
    assert chat.value.response.request.headers["x-stainless-retry-count"] == "0"
    with pytest.raises(anthropic.ConflictError) as message:
        anthropic_client.with_options(max_retries=2).messages.create(
            model="claude-haiku-4-5", max_tokens=9, messages=QUESTION, extra_headers=headers
        )
    assert message.value.response.request.headers["x-stainless-retry-count"] == "0"

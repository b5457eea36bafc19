"""SIGKILL to the web process at a random point under load: restart, sweep, and count.

Each call carries a name of its own, which the upstream records when the call reaches it and which the event keeps as its end
user. So what went out can be compared with what is in the books, call by call.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.servers import Database, WebProcess, manage
from tests.upstream import RunningUpstream, upstream_server

pytestmark = [pytest.mark.kill, pytest.mark.timeout(300)]

CLIENTS = 8
STREAM_END = b"data: [DONE]"


class Load:
    """Clients that call one after the other until told to stop. `answered`: names of the calls whose answer came whole."""

    def __init__(self, web: WebProcess, seed: int, names: Iterator[int]) -> None:
        self.answered: set[str] = set()
        self._web, self._seed, self._names = web, seed, names
        self._stopping = False
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._call_on, number) for number in range(CLIENTS)]

    def stop(self) -> None:
        self._stopping = True
        for client in self._clients:
            client.result()
        self._pool.shutdown()

    def _call_on(self, number: int) -> None:
        chance = random.Random(self._seed * 1000 + number)
        with self._web.client() as client:
            while not self._stopping:
                name = f"call-{next(self._names)}"
                try:
                    whole = self._call(client, name, stream=chance.random() < 0.5, slow=chance.random() < 0.3)
                except httpx.TransportError:
                    time.sleep(0.01)
                    continue
                if whole:
                    self.answered.add(name)

    def _call(self, client: httpx.Client, name: str, *, stream: bool, slow: bool) -> bool:
        """Whether the answer came to its end."""
        body = {"model": "gpt-4o-mini", "messages": [], "user": name, "stream": stream}
        # In a header as well: a body that the kill cut off has no name in it, and yet its call has reached the upstream.
        headers = {"x-call-id": name, "x-fault": "slow" if slow else ""}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            read = b""
            for piece in answer.iter_raw():
                read += piece
                if STREAM_END in read:
                    return True  # the official clients stop here as well
        return answer.status_code == 200 and not stream


@pytest.fixture
def providers() -> Iterator[RunningUpstream]:
    with upstream_server(pause_s=0.01) as running:
        yield running


def test_a_killed_web_process_loses_and_doubles_nothing(
    kill_seed: int, start_web: Callable[..., WebProcess], providers: RunningUpstream
) -> None:
    names = count()
    env = {"UPSTREAM_OPENAI_URL": providers.url, "UPSTREAM_OPENAI_KEY": "sk-upstream"}
    web = start_web(env=env)
    load = Load(web, kill_seed, names)
    wait_for_calls(providers, random.Random(kill_seed).randint(1, 120))
    web.kill()
    load.stop()

    restarted = start_web(web.database, env=env)
    second = Load(restarted, kill_seed + 500, names)
    wait_for_calls(providers, len(providers.calls) + 20)
    second.stop()
    restarted.stop()

    assert json.loads(manage(web.database.url, "-m", "tests.e2e.aftermath").splitlines()[-1]) == []
    went_out = {call.caller for call in providers.calls}
    assert_each_is_in_the_books_once(web.database, went_out, load.answered | second.answered)


def wait_for_calls(providers: RunningUpstream, wanted: int) -> None:
    while len(providers.calls) < wanted:
        time.sleep(0.002)


def assert_each_is_in_the_books_once(database: Database, went_out: set[str], answered: set[str]) -> None:
    events = database.rows("select user_id, status, usage_source, tokens_output from usage_events")
    counted = Counter(event["user_id"] for event in events)
    assert {name: counted[name] for name in went_out if counted[name] != 1} == {}
    assert {name: times for name, times in counted.items() if times > 1} == {}
    complete = {
        event["user_id"]
        for event in events
        if (event["usage_source"], event["tokens_output"]) == ("reported", 5)
    }
    assert answered - complete == set(), "a client has the whole answer, and the event does not"
    assert {event["status"] for event in events if event["user_id"] not in went_out} <= {
        "interrupted",
        "error",
    }
    assert database.rows("select id from usage_holds") == []
    assert database.rows("select id from usage_quarantine") == []

"""Metered against unmetered over HTTP, side by side: throughput, latency, and the first byte of a stream.

What it does not show: a provider's latency (the applications answer at once, so metering is all there is to see), and more
than one web process.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.database import bare_commit_loop
from benchmarks.figures import Figure, median
from benchmarks.ledger import give
from benchmarks.servers import ROOT, conninfo, postgresql, web

ROUNDS, SECONDS = 5, 4.0
PATH = "/v1/chat/completions"


def measure() -> Iterator[Figure]:
    """Sections (a) and (e)."""
    with postgresql() as url:
        env = {"DATABASE_URL": url, "BENCH_CONNINFO": json.dumps(conninfo(url))}
        yield from _django(env)
        yield from _bare(env, bare_commit_loop(url, batch=64, seconds=SECONDS))
        yield from _stream(env)
        give(url)
        yield from _spending(env)


def _spending(env: dict[str, str]) -> Iterator[Figure]:
    """Every call reserves credits and fits under a quota, a budget and a limit of calls at once."""
    _, _, metered = _side_by_side("bare", env, connections=128, kind="spending")
    rate = median([m["rate"] for m in metered])
    yield Figure(
        "http bare with credits and limits, both phases durable", rate, "calls/s (goal of 4,000 reported)"
    )
    ratios, _, _ = _side_by_side("django", env, connections=32, kind="spending")
    yield Figure("http django with credits and limits / unmetered", median(ratios), "ratio", goal=0.88)


def _django(env: dict[str, str]) -> Iterator[Figure]:
    ratios, plain, metered = _side_by_side("django", env, connections=32)
    yield Figure("http django metered / unmetered", median(ratios), "ratio", goal=0.90)
    yield Figure("http django unmetered", median([m["rate"] for m in plain]), "calls/s")
    yield Figure("http django metered", median([m["rate"] for m in metered]), "calls/s")
    yield from _added("django", env)


def _bare(env: dict[str, str], loop_rate: float) -> Iterator[Figure]:
    _, plain, metered = _side_by_side("bare", env, connections=128)
    rate = median([m["rate"] for m in metered])
    yield Figure("bare commit loop, batches of 64", loop_rate, "rows/s")
    yield Figure("http bare metered / bare commit loop", rate / loop_rate, "ratio", goal=0.5)
    yield Figure("http bare metered, both phases durable", rate, "calls/s (goal of 5,000 reported)")
    yield Figure("http bare unmetered", median([m["rate"] for m in plain]), "calls/s")
    yield from _added("bare", env)


def _added(app: str, env: dict[str, str]) -> Iterator[Figure]:
    """What one call at a time waits longer: one connection, so that nothing queues."""
    _, plain, metered = _side_by_side(app, env, connections=1, rounds=3, seconds=2.0)
    for name in ("p50", "p99"):
        added = median([m[name] for m in metered]) - median([m[name] for m in plain])
        yield Figure(f"http {app} added {name}, one connection", added, "ms")


def _stream(env: dict[str, str]) -> Iterator[Figure]:
    _, plain, metered = _side_by_side("bare", env, connections=1, rounds=3, seconds=2.0, stream=True)
    for name in ("first_p50", "first_p99"):
        added = median([m[name] for m in metered]) - median([m[name] for m in plain])
        yield Figure(f"http time to first byte added on a stream, {name[6:]}", added, "ms")


def _side_by_side(
    app: str,
    env: dict[str, str],
    *,
    connections: int,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    stream: bool = False,
    kind: str = "metered",
) -> tuple[list[float], list[dict[str, float]], list[dict[str, float]]]:
    """Both servers up, loaded in turn: the ratios of neighbouring rounds, and the rounds."""
    with (
        web(f"benchmarks.apps:{app}", env) as plain_url,
        web(f"benchmarks.apps:{app}_{kind}", env) as metered_url,
    ):
        for url in (plain_url, metered_url):
            load(url, connections, 1.0, stream)
        pairs = [
            (load(plain_url, connections, seconds, stream), load(metered_url, connections, seconds, stream))
            for _ in range(rounds)
        ]
    ratios = [metered["rate"] / plain["rate"] for plain, metered in pairs]
    return ratios, [plain for plain, _ in pairs], [metered for _, metered in pairs]


def load(
    url: str, connections: int, seconds: float, stream: bool = False, path: str = PATH
) -> dict[str, float]:
    """One round of the load generator; what it measured."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.load",
        url + path,
        str(connections),
        str(seconds),
        *(["stream"] if stream else []),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer

"""Programs that live and die together."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT

SLEEP = r"import os, time; os.write(1, b'up\n'); time.sleep(60)"  # one write, so that lines stay whole
Run = Callable[..., "subprocess.Popen[str]"]
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


@pytest.fixture
def run() -> Iterator[Run]:
    started = []

    def start(*codes: str, stop_s_max: float = 10) -> "subprocess.Popen[str]":
        started.append(together(*codes, stop_s_max=stop_s_max))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def together(*codes: str, stop_s_max: float) -> "subprocess.Popen[str]":
    """A process that runs these programs together; prints their pids, and at the end what ended."""
    script = f"""
        import os, sys
        from project import processes
        processes.STOP_S_MAX = {stop_s_max}
        programs = [processes.Program(f"p{{n}}", [sys.executable, "-c", code]) for n, code in enumerate({list(codes)!r})]
        together = processes.Together(programs, os.environ)
        together.start()
        os.write(1, (" ".join(map(str, together.pids)) + chr(10)).encode())
        ended = together.wait(look_every_s=0.02)
        together.stop()
        print(ended, flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def lines_until(process: "subprocess.Popen[str]", ups: int) -> list[int]:
    """The children's pids, once that many of them run."""
    assert process.stdout is not None
    pids: list[int] = []
    while ups > 0 or not pids:
        line = process.stdout.readline().split()
        if line == ["up"]:
            ups -= 1
        else:
            pids = [int(pid) for pid in line]
    return pids


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").exists() else True


def test_a_signal_ends_all(run: Run) -> None:
    process = run(SLEEP, SLEEP)
    children = lines_until(process, ups=2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert out.split() == ["None"]
    assert not any(map(runs, children))


def test_one_that_ends_takes_the_others_along_and_its_code_is_told(run: Run) -> None:
    process = run(SLEEP, "raise SystemExit(7)")
    children = lines_until(process, ups=0)
    out, _ = process.communicate(timeout=30)
    assert out.splitlines()[-1] == "('p1', 7)"
    assert not any(map(runs, children))


def test_one_that_does_not_listen_is_killed(run: Run) -> None:
    process = run(DEAF, stop_s_max=0.3)
    children = lines_until(process, ups=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert not any(map(runs, children))

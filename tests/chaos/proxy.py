"""A TCP proxy in front of PostgreSQL that cuts connections after it has forwarded what the client sent: the server goes on
and commits, the client never learns. Runs in a thread of its own."""

import asyncio
import random
import threading
from typing import Self


class CuttingProxy:
    """Listens on `port`; while `cutting`, cuts a connection with the given chance for each message of the client."""

    def __init__(self, target: tuple[str, int] | str, seed: int, chance: float = 0.02) -> None:
        self._target, self._random, self._chance = target, random.Random(seed), chance
        self.cutting = False
        self.cuts = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc: object) -> None:
        self.cutting = False
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._close_all())
        self._loop.close()

    async def _close_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # the transports report their end

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        else:
            up_reader, up_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, up_writer}
        down = asyncio.create_task(self._pump(up_reader, writer))
        try:
            while data := await reader.read(65536):
                up_writer.write(data)
                await up_writer.drain()
                if self.cutting and self._random.random() < self._chance:
                    self.cuts += 1
                    down.cancel()
                    break
        except OSError:
            pass
        finally:
            down.cancel()
            writer.close()
            # half open towards the server for a moment, as a broken network leaves it
            self._loop.call_later(0.2, up_writer.close)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

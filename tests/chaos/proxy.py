"""A TCP proxy in front of PostgreSQL that cuts connections after it has forwarded what the client sent: the server goes on
and commits, the client never learns. Runs in a thread of its own."""

import asyncio
import random
import threading
from typing import Self


class CuttingProxy:
    """Listens on `port`, and cuts the connection that brings the n-th message of a client, counted over all connections
    since the last cut; n is random, and `rarest` at the most. So however many messages a busy machine makes of its load,
    as soon as there are so many one connection has been cut. `cuts` counts them."""

    def __init__(self, target: tuple[str, int] | str, seed: int, rarest: int = 40) -> None:
        self._target, self._random, self._rarest = target, random.Random(seed), rarest
        self._messages_left = self._random.randint(1, rarest)
        self.cuts = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
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
        self._writers.add(writer)
        try:
            if isinstance(self._target, str):
                up_reader, up_writer = await asyncio.open_unix_connection(self._target)
            else:
                up_reader, up_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.close()
            return
        self._writers.add(up_writer)
        down = asyncio.create_task(self._pump(up_reader, writer))
        try:
            while data := await reader.read(65536):
                up_writer.write(data)
                await up_writer.drain()
                if self._is_to_be_cut():
                    down.cancel()
                    break
        except OSError:
            pass
        finally:
            down.cancel()
            writer.close()
            # half open towards the server for a moment, as a broken network leaves it
            self._loop.call_later(0.2, up_writer.close)

    def _is_to_be_cut(self) -> bool:
        self._messages_left -= 1
        if self._messages_left > 0:
            return False
        self._messages_left = self._random.randint(1, self._rarest)
        self.cuts += 1
        return True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

"""Ten minutes at four times what a server can answer: it turns away what it cannot do, grows no larger, and goes on."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
import pandas as pd
import psutil
import pytest

from flows.services.service import HOST, free_port
from pipeline.settings import set_params
from tests.titles.small import register

SECONDS = float(os.environ.get("LECTERN_LOAD_SECONDS", "600"))
"""Of overload. Anything shorter is for who works on this test."""
OVERLOAD = 4
CLIENTS = 8
"""That ask while the capacity is measured: enough to keep a server busy, few enough to be let in."""
PATIENCE = 120
GROWTH = 1.1

BODY = "so in this part of the lesson we talk about {} and about why it matters to those who write programs "


class Service(NamedTuple):
    port: int
    path: str
    process: subprocess.Popen[bytes]

    def megabytes(self) -> float:
        """Resident memory, with that of its children."""
        main = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in (main, *main.children(recursive=True))) / 1e6


@contextmanager
def serving(words: Sequence[str], path: str, health: str, **env: str) -> Iterator[Service]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", *words, "--port", str(port)], env=os.environ | env)
    service = Service(port, path, process)
    try:
        wait_until_healthy(service, health)
        yield service
    finally:
        process.terminate()
        process.wait(PATIENCE)


def wait_until_healthy(service: Service, health: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if httpx2.get(f"http://{HOST}:{service.port}{health}", timeout=5).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        assert service.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


async def ask(service: Service, number: int, seen: Counter[int | str]) -> None:
    """One request on a connection of its own.

    By hand: the pool of a client library looks through all its connections at each request, and is soon busier than
    the server.
    """
    text = BODY.format(f"subject {number}")
    body = json.dumps({"texts": [text]} if service.path == "/titles" else {"inputs": [text]}).encode()
    head = f"POST {service.path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, service.port)
            with closing(writer):
                writer.write(head.encode() + body)
                answer = await reader.read()
        seen[int(answer.split(maxsplit=2)[1])] += 1
    except (OSError, IndexError) as error:  # no answer in time, or none
        seen[type(error).__name__] += 1


async def capacity(service: Service, seconds: float) -> float:
    """Requests a second that it answers to clients who ask one after the other."""
    seen: Counter[int | str] = Counter()
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await ask(service, seen.total(), seen)

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    assert set(seen) == {200}, seen
    return seen[200] / seconds


async def flood(service: Service, rate: float, seconds: float) -> tuple[Counter[int | str], list[float]]:
    """What came back of `rate` requests a second, whoever still waits for an answer, and the memory meanwhile."""
    seen: Counter[int | str] = Counter()
    memory: list[float] = []
    waiting: set[asyncio.Task[None]] = set()
    start = time.monotonic()
    number = 0
    while (now := time.monotonic() - start) < seconds:
        for _ in range(int(now * rate) - number):
            number += 1
            task = asyncio.create_task(ask(service, number, seen))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        if now > len(memory):
            memory.append(service.megabytes())
        await asyncio.sleep(0.05)
    await asyncio.gather(*waiting)
    assert seen.total() == number
    return seen, memory


async def bears_the_load(service: Service) -> None:
    can = await capacity(service, min(15.0, SECONDS))
    seen, memory = await flood(service, OVERLOAD * can, SECONDS)
    quarter = len(memory) // 4
    before, after = (statistics.median(part) for part in (memory[quarter : 2 * quarter], memory[-quarter:]))
    print(
        f"{service.path}: {can:.1f} requests a second; at {OVERLOAD} times that for {SECONDS:.0f} s {dict(seen)}; "
        f"{before:.0f} MB at first, {after:.0f} MB in the end"
    )
    assert service.process.poll() is None
    assert set(seen) <= {200, 429, 503}, seen
    assert seen[200]
    assert seen[429] + seen[503]
    assert after < GROWTH * before
    assert await capacity(service, min(15.0, SECONDS)) > can / 2


@pytest.mark.hard
def test_the_server_of_titles_at_four_times_its_capacity(project: Path, examples: pd.DataFrame) -> None:
    register(project / "small", examples)
    set_params(["serve"], {"waiting": CLIENTS})
    with serving(["lectern", "serve"], "/titles", "/health") as service:
        asyncio.run(bears_the_load(service))


@pytest.mark.hard
def test_mlflow_serving_at_four_times_its_capacity(project: Path, examples: pd.DataFrame) -> None:
    register(project / "small", examples)
    words = ["mlflow", "models", "serve", "--model-uri", "models:/lectern@challenger", "--env-manager", "local"]
    with serving(words, "/invocations", "/ping", UVICORN_LIMIT_CONCURRENCY=str(2 * CLIENTS)) as service:
        asyncio.run(bears_the_load(service))

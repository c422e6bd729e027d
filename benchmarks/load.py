"""Measure how a running `lectern serve` handles load: answers, delays and refused requests.

    lectern serve --port 8080 &
    python benchmarks/load.py [--url http://127.0.0.1:8080] [--clients 1 8 64] [--requests 64] [--texts 1]

Each client sends its next request when it has an answer. A client that is refused (429) tries again after the time that
the server names, and its delay counts from the first try. All texts are different texts of the embedded workbook.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx2
import numpy as np
from machine import describe_machine
from workbooks import read_examples

_PATIENCE = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=64, help="requests to be answered, for each number of clients")
    parser.add_argument("--texts", type=int, default=1, help="texts per request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = cycle(read_examples(None, Path(folder))["text"].drop_duplicates().tolist())
    version = httpx2.get(f"{options.url}/health", timeout=10).raise_for_status().json()["version"]
    print(f"{describe_machine()}, version {version}, {options.texts} text(s) a request\n")
    print("| clients | answered | turned away (429) | failed | texts a second | delay: median | 95 % | longest |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for clients in options.clients:
        print(asyncio.run(row(options.url, clients, options.requests, options.texts, texts)), flush=True)


async def row(url: str, clients: int, requests: int, size: int, texts: Iterator[str]) -> str:
    bodies = iter([[next(texts) for _ in range(size)] for _ in range(requests)])
    seen: Counter[int] = Counter()
    delays: list[float] = []
    limits = httpx2.Limits(max_connections=clients)
    start = time.monotonic()
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, limits=limits) as session:
        await asyncio.gather(*(client(session, bodies, seen, delays) for _ in range(clients)))
    seconds = time.monotonic() - start
    failed = seen.total() - seen[200] - seen[429]
    median, high = np.percentile(delays, [50, 95])
    cells = [clients, seen[200], seen[429], failed, f"{seen[200] * size / seconds:.2f}"]
    cells += [f"{delay:.2f} s" for delay in (median, high, max(delays))]
    return f"| {' | '.join(map(str, cells))} |"


async def client(
    session: httpx2.AsyncClient, bodies: Iterator[list[str]], seen: Counter[int], delays: list[float]
) -> None:
    for texts in bodies:
        start = time.monotonic()
        while True:
            reply = await session.post("/titles", json={"texts": texts})
            seen[reply.status_code] += 1
            if reply.status_code != 429:
                break
            await asyncio.sleep(int(reply.headers["Retry-After"]))
        delays.append(time.monotonic() - start)


if __name__ == "__main__":
    main()

"""Clients that ask a server as fast as it answers, in a process of their own; prints one line of JSON.

    python bench/load.py PORT KEY BUNDLE TEXTS.json CLIENTS SECONDS

Each client keeps its connection, sends one message, waits for the answer and sends the next. Requests are made beforehand
and answers are only looked at for their status and length, so that the clients take little of the machine (`client_share`:
of one core). Latency is from the first byte sent to the last received, the client's own loop included.
"""
from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

WARM_SECONDS = 1.0  # asked before anything counts


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: list[bytes], seconds: list[float], statuses: Counter[str], ends: asyncio.Event) -> None:
        self.requests, self.seconds, self.statuses, self.ends = cycle(requests), seconds, statuses, ends
        self.began, self.received = 0.0, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.began = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(body) < length:
            return
        self.seconds.append(time.perf_counter() - self.began)
        self.statuses[head[9:12].decode()] += 1
        self.received = b""
        if self.ends.is_set():
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, _error: Exception | None) -> None:
        self.statuses["lost"] += not self.ends.is_set()


async def load(port: int, key: str, bundle: str, texts: list[str], clients: int, seconds: float) -> dict[str, object]:
    """Requests a second, latencies and the clients' own share of a core."""
    requests = []
    for text in texts:
        body = json.dumps({"texts": [text]}, ensure_ascii=False).encode()
        head = (f"POST /v1/bundles/{bundle}/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n")
        requests.append(head.encode() + body)
    spent, statuses, ends = list[float](), Counter[str](), asyncio.Event()
    loop = asyncio.get_running_loop()
    for i in range(clients):
        own = list(islice(cycle(requests), i * len(requests) // clients, i * len(requests) // clients + len(requests)))
        await loop.create_connection(lambda own=own: Client(own, spent, statuses, ends), "127.0.0.1", port)
    await asyncio.sleep(WARM_SECONDS)
    spent.clear()
    statuses.clear()
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    ends.set()
    if not spent:
        raise SystemExit(f"no answer within {seconds} s, {dict(statuses)}")
    took, cpu, counted = time.perf_counter() - began, time.process_time() - cpu, sorted(spent)
    return {"clients": clients, "requests_per_second": round(len(counted) / took, 1), "requests": len(counted),
            "p50_ms": round(1e3 * counted[len(counted) // 2], 2), "p99_ms": round(1e3 * counted[len(counted) * 99 // 100], 2),
            "not_200": sum(n for status, n in statuses.items() if status != "200"), "client_share": round(cpu / took, 2)}


if __name__ == "__main__":
    port, key, bundle, texts, clients, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(load(int(port), key, bundle, json.loads(Path(texts).read_text(encoding="utf-8")), int(clients),
                                      float(seconds)))))

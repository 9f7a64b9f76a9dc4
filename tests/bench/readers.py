"""Readers of the service while a head trains and an ETL run loads, and more than it can take.

`python -m tests.bench.readers [--data FOLDER --model MODEL] [--readers 32] [--seconds 60]`:
loopback only, at most 256 readers and 30 minutes. Without a folder it makes the demo in one of its
own. In a folder that is given it trains models named load-….

Each reader sends its next request when the last one is answered and `--think-ms` are over. One
table: how many requests, how many failed, and how long they took, for each kind.
"""

import argparse
import asyncio
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import cast

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from etl.database import DATABASE
from tests.e2e.server import GAPSCOPE, environment, free_port, job_done, serving, wait_until

MAX_READERS, MAX_SECONDS = 256, 1800
LIST_S = 0.3  # wanted of 99 % of lists and kept analyses
REFUSAL_S = 0.05  # wanted of an answer that there is too much to do
_SAMPLE_S = 5.0
_WARM_UP_S = 60.0  # memory is compared with what it is by then, at most a fifth of the time
_CROWDS = (100, 200, 600)


class Readers:
    """So many readers, each with a connection of its own, on one thread: they take little of the
    two cores that the service has too."""

    def __init__(self, port: int, addresses: list[tuple[str, str]], n: int, think_s: float) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.failed: dict[str, list[str]] = defaultdict(list)
        self._port, self._addresses, self._n, self._think_s = port, addresses, n, think_s
        self._stop = threading.Event()

    @contextmanager
    def reading(self) -> Iterator[None]:
        thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(self._read(i) for i in range(self._n)))

    async def _read(self, i: int) -> None:
        mine = cycle(self._addresses[i % len(self._addresses) :] + self._addresses)
        connection = None
        for kind, address in mine:
            await asyncio.sleep(self._think_s)
            if self._stop.is_set():
                break
            began = time.monotonic()
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                async with asyncio.timeout(60):
                    status = await _get(*connection, address)
            except (OSError, EOFError, TimeoutError) as error:
                self.failed[kind].append(f"{address}: {error!r}")
                connection = None
                continue
            self.seconds[kind].append(time.monotonic() - began)
            if status != 200:
                self.failed[kind].append(f"{address}: {status}")
        if connection is not None:
            connection[1].close()


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> int:
    """Ask for an address and read the whole answer: its status."""
    writer.write(f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    assert length is not None, head
    await reader.readexactly(int(length[1]))
    return int(head.split(None, 2)[1])


@contextmanager
def meanwhile(do: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something again and again beside what is inside; it is told when that is over."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            do(stop)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def train(client: httpx.Client, backbone: str, counts: Counter[str], stop: threading.Event) -> None:
    """Train one head, or cancel it where nobody reads any more."""
    grid = {"C": [0.001 * 1.2**i for i in range(40)]}
    body = {"backbone": backbone, "head": "logistic", "params": grid, "seed": counts["trained"]}
    asked = client.post("/train", json={**body, "name": f"load-{time.time_ns()}"})
    state = None
    while state not in ("done", "failed", "cancelled", "interrupted"):
        if stop.wait(1):
            client.delete(asked.headers["location"])
            return
        state = client.get(asked.headers["location"]).json()["state"]
    assert state == "done", state
    counts["trained"] += 1


def load(data: Path, files: list[Path], counts: Counter[str]) -> None:
    """Load the files once more."""
    command = [GAPSCOPE, "load", *files]
    done = subprocess.run(command, env=environment(data), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    counts["loaded"] += 1


def gauges(client: httpx.Client) -> dict[tuple[str, ...], float]:
    text = client.get("/metrics").text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def addresses_of(client: httpx.Client, model: str) -> list[tuple[str, str]]:
    """What is read: lists, kept analyses, thumbnails, pages."""
    found = client.get(f"/gap/{model}/images/list").raise_for_status().json()
    images = [one["image_id"] for one in found["images"]][:10]
    lists = ["/models", "/splits", "/jobs?limit=50", "/hypotheses", "/reports", f"/models/{model}",
             f"/gap/{model}/images/list"]  # fmt: skip
    # other models are witnesses of difficulty: each one trained makes that part be computed anew
    kept = [f"/gap/{model}?top=20&wait=false", f"/gap/{model}/ledger", f"/gap/{model}/classes",
            f"/gap/{model}/features", f"/gap/{model}/chart/gap"]  # fmt: skip
    thumbnails = [f"/images/{image}/thumbnail" for image in images]
    there = [one for one in thumbnails if client.get(one).status_code == 200]
    kinds = {"list": lists, "kept analysis": kept, "thumbnail": there, "page": ["/"]}
    every = [(kind, address) for kind, some in kinds.items() for address in some]
    absent = [(a, s) for _, a in every if (s := client.get(a).status_code) != 200]
    if absent:
        raise SystemExit(f"wanted addresses that answer, got {absent}")
    # shuffled, so that not all ask for the same at the same time
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))]


async def crowd(port: int, n: int, address: str) -> tuple[list[float], dict[int, int]]:
    """Send n requests at once, each on a connection of its own; seconds of those refused."""
    statuses: dict[int, int] = defaultdict(int)
    refused: list[float] = []

    async def one() -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            statuses[0] += 1
            return
        began = time.monotonic()
        writer.write(
            f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            line = await asyncio.wait_for(reader.readline(), 120)
            took = time.monotonic() - began
            status = int(line.split()[1]) if line else 0
            await reader.read()
        except (OSError, TimeoutError):
            status, took = 0, 0.0
        statuses[status] += 1
        if status in (429, 503):
            refused.append(took)
        writer.close()

    await asyncio.gather(*(one() for _ in range(n)))
    return refused, statuses


class Bare(asyncio.Protocol):
    """Refuses everybody without a look: no server on this event loop is quicker."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        self._transport.close()


async def refuse_all(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


@contextmanager
def bare_server() -> Iterator[int]:
    port = free_port()
    code = f"import asyncio; from tests.bench.readers import *; asyncio.run(refuse_all({port}))"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60)
            yield port
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="a data folder with a model and its analyses")
    parser.add_argument("--model", default="pixels-logistic")
    parser.add_argument("--files", type=Path, nargs="*", help="what the ETL run loads")
    parser.add_argument("--readers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think-ms", type=float, default=0)
    arguments = parser.parse_args()
    if not (1 <= arguments.readers <= MAX_READERS and 0 < arguments.seconds <= MAX_SECONDS):
        raise SystemExit(f"at most {MAX_READERS} readers and {MAX_SECONDS} seconds")
    with ExitStack() as stack:
        data = arguments.data
        if data is None:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
            subprocess.run([GAPSCOPE, "demo"], env=environment(data), check=True)
        files = arguments.files
        if files is None and (data / "demo").is_dir():
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            files = [
                Path(shutil.copy(f, copy)) for f in sorted((data / "demo").glob("*_pixels.csv"))
            ]
        client, _ = stack.enter_context(serving(data))
        model = arguments.model
        if not any(card["model"] == model for card in client.get("/models").json()):
            backbone = client.get("/splits").json()[0]["backbone"]
            train = {"backbone": backbone, "head": "logistic", "seed": 0, "name": model}
            job_done(client, client.post("/train", json=train).headers["location"], 600)
        client.get(f"/gap/{model}", timeout=1200)  # computed once, kept from here on
        while any(j["state"] in ("queued", "running") for j in client.get("/jobs").json()):
            time.sleep(1)
        backbone = client.get(f"/models/{model}").json()["backbone"]
        port = client.base_url.port
        assert port is not None
        addresses = addresses_of(client, model)
        measure(client, port, data, backbone, files or [], addresses, arguments)


def measure(
    client: httpx.Client,
    port: int,
    data: Path,
    backbone: str,
    files: list[Path],
    addresses: list[tuple[str, str]],
    arguments: argparse.Namespace,
) -> None:
    readers = Readers(port, addresses, arguments.readers, arguments.think_ms / 1e3)
    counts: Counter[str] = Counter()
    memory: list[tuple[float, float]] = []
    began = time.monotonic()
    with ExitStack() as busy:
        busy.enter_context(meanwhile(lambda stop: train(client, backbone, counts, stop)))
        if files:
            busy.enter_context(meanwhile(lambda _stop: load(data, files, counts)))
        busy.enter_context(readers.reading())
        while (spent := time.monotonic() - began) < arguments.seconds:
            memory.append((spent, gauges(client)["gapscope_memory_bytes", "service"]))
            time.sleep(min(_SAMPLE_S, arguments.seconds / 10))
    size = (data / DATABASE).stat().st_size
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, {datetime.now(UTC):%Y-%m-%d}; "
        f"{arguments.readers} readers, {arguments.think_ms:.0f} ms between their requests, "
        f"{arguments.seconds:.0f} s; database {size / 1e6:.0f} MB; meanwhile {counts['trained']} "
        f"heads trained and {counts['loaded']} loads\n\n"
        "| kind | requests | failed | median, ms | 99 %, ms | longest, ms |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for kind in dict.fromkeys(kind for kind, _ in addresses):
        ms = 1e3 * np.array(readers.seconds[kind])
        print(
            f"| {kind} | {len(ms):,} | {len(readers.failed[kind])} | {np.median(ms):.0f} | "
            f"{np.quantile(ms, 0.99):.0f} | {ms.max():.0f} |"
        )
    for examples in readers.failed.values():
        print(*examples[:5], sep="\n")
    warm = min(_WARM_UP_S, arguments.seconds / 5)
    early = np.median([b for t, b in memory if warm <= t < 2 * warm])
    late = np.median([b for t, b in memory if t >= memory[-1][0] - warm])
    print(
        f"\nmemory of the service: {early / 1e6:.0f} MB after {warm:.0f} s, {late / 1e6:.0f} MB at "
        f"the end: {late / early - 1:+.1%}"
    )
    course = [memory[int(i * (len(memory) - 1) / 10)] for i in range(11)]
    print("its course: " + ", ".join(f"{b / 1e6:.0f} MB at {t:.0f} s" for t, b in course))
    with bare_server() as bare:
        for n in _CROWDS:
            refused, statuses = asyncio.run(crowd(port, n, addresses[0][1]))
            bare_refused, _ = asyncio.run(crowd(bare, n, "/"))
            said = ", ".join(f"{k} answered {status}" for status, k in sorted(statuses.items()))
            print(
                f"{n} requests at once: {said}; 99 % of the refused within {_p99(refused)}; by a "
                f"bare server that does nothing else {_p99(bare_refused)}"
            )
    print(
        f"wanted: 99 % of lists and kept analyses within {1e3 * LIST_S:.0f} ms, refusals within "
        f"{1e3 * REFUSAL_S:.0f} ms, memory + 5 % in 30 minutes"
    )


def _p99(seconds: list[float]) -> str:
    return f"{1e3 * np.quantile(seconds, 0.99):.0f} ms" if seconds else "none"


if __name__ == "__main__":
    main()

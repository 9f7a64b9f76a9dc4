"""Starts the real service in a process of its own, as `gapscope serve` does."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

GAPSCOPE = Path(sys.executable).with_name("gapscope")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data: Path, port: int = 8000) -> dict[str, str]:
    keep = {name: value for name, value in os.environ.items() if not name.startswith("GAP_")}
    return {**keep, "GAP_DATA": str(data), "GAP_PORT": str(port), "GAP_THREADS": "1"}


@contextmanager
def serving(
    data: Path, settings: Mapping[str, str] | None = None, stderr: IO[str] | None = None
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes]]]:
    port = free_port()
    env = {**environment(data, port), **(settings or {})}
    process = subprocess.Popen([GAPSCOPE, "serve"], env=env, stdout=subprocess.PIPE, stderr=stderr)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: answers(client), 60)
            yield client, process
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").json()["worker"]
    except httpx.TransportError:
        return False


def wait_until(condition, seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"not within {seconds} s")


def job_done(client: httpx.Client, location: str, seconds: float = 300) -> dict:
    def over():
        job = client.get(location).json()
        return job if job["state"] not in ("queued", "running", "cancelling") else None

    return wait_until(over, seconds)

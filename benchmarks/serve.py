"""Requests to ``aigc serve`` that come together, side by side with the same one after another; and load that is rough.

    python benchmarks/serve.py transformer-shakespeare/first
    python benchmarks/serve.py transformer-shakespeare/first,vae-digits/first --minutes 10

Both ask the same of the first run, in a server that is a process of its own, a text of 64 tokens for each of 32 seeds,
and take turns; each turn gives one ratio, and the texts are compared. With ``--minutes`` requests of all kinds follow,
of all runs: samples, streams that are left halfway, uploads and bodies that are broken, words that are wrong; statuses
are counted, and the memory of the server is looked at.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

REQUESTS = 32


@contextmanager
def server(run: str) -> Iterator[tuple[str, int]]:
    """The address of a server of a run, and the number of its process."""
    command = [sys.executable, "-m", "aigc_cli", "serve", f"run={run}", "port=0", "device=cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = ""
        while "listening on" not in line:
            line = process.stderr.readline()
            assert line, "the server ended"
        threading.Thread(target=lambda: sys.stderr.writelines(process.stderr or ()), daemon=True).start()
        try:
            yield line.split()[2].rstrip(";"), process.pid
        finally:
            process.terminate()


def text(client: httpx.Client, seed: int, tokens: int) -> str:
    asked = {"prompt": "The ", "seed": seed, "max_tokens": tokens, "stop": None}
    answer = client.post("/v1/completions", json=asked)
    answer.raise_for_status()
    found: str = answer.json()["choices"][0]["text"]
    return found


def turns(url: str, count: int, tokens: int) -> None:
    with httpx.Client(base_url=url, timeout=300) as client, ThreadPoolExecutor(REQUESTS) as pool:
        text(client, 0, tokens)
        ratios = []
        for _ in range(count):
            began = time.perf_counter()
            alone = [text(client, seed, tokens) for seed in range(REQUESTS)]
            middle = time.perf_counter()
            together = list(pool.map(lambda seed: text(client, seed, tokens), range(REQUESTS)))
            ended = time.perf_counter()
            ratios.append((middle - began) / (ended - middle))
            same = sum(one == other for one, other in zip(alone, together, strict=True))
            print(f"one after another {middle - began:.2f} s, together {ended - middle:.2f} s: {ratios[-1]:.1f} times, "
                  f"{same} of {REQUESTS} texts the same")  # fmt: skip
        print(f"median: {statistics.median(ratios):.1f} times the throughput")


def memory(process: int) -> float:
    """MB that a process has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def rough(url: str, process: int, minutes: float) -> None:
    """Requests of all kinds, until the time is up."""
    end, statuses = time.monotonic() + 60 * minutes, Counter[object]()
    runs = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]

    def ask(number: int) -> None:
        draw = random.Random(number)
        kind, json_ = draw.randrange(10), {"content-type": "application/json"}
        with httpx.Client(base_url=url, timeout=120) as client:
            asked = {"prompt": "The ", "seed": number, "max_tokens": draw.randint(1, 120), "n": draw.randint(1, 3)}
            try:
                if kind < 3:
                    statuses[client.post("/v1/completions", json=asked).status_code] += 1
                elif kind < 5:  # left halfway
                    with client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as stream:
                        for _ in zip(range(draw.randint(1, 9)), stream.iter_lines(), strict=False):
                            pass
                    statuses["left"] += 1
                elif kind == 5:
                    body = draw.choice([b"{", b"[]", b"\xff\xfe", json.dumps({"prompt": 3.5}).encode(), b""])
                    statuses[client.post("/v1/completions", content=body, headers=json_).status_code] += 1
                elif kind == 6:
                    wrong = draw.choice([{"n": 10_000}, {"temperature": -1}, {"top_q": 1}, {"model": "../x"}])
                    statuses[client.post("/generate", json=wrong).status_code] += 1
                elif kind == 7:
                    made = {"model": draw.choice(runs), "n": draw.randint(1, 4), "seed": number}
                    statuses[client.post("/generate", json=made).status_code] += 1
                elif kind == 8:
                    broken = draw.randbytes(draw.choice([0, 100, 10**6]))
                    image = {"content-type": "image/png"}
                    statuses[client.post("/reconstruct", content=broken, headers=image).status_code] += 1
                else:
                    statuses[client.get(draw.choice(["/metrics", "/", "/v1/models", "/nowhere"])).status_code] += 1
            except httpx.HTTPError as error:
                statuses[type(error).__name__] += 1

    with ThreadPoolExecutor(16) as pool:
        number, shown = 0, 0.0
        while time.monotonic() < end:
            list(pool.map(ask, range(number, number + 64)))
            number += 64
            if time.monotonic() - shown > 15:
                shown = time.monotonic()
                print(f"{number} requests, {memory(process):.0f} MB", flush=True)
    print(f"{number} requests, {memory(process):.0f} MB: {dict(statuses)}")
    time.sleep(1)
    left = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("aigc_requests_at_work")]
    print(f"left over: {left}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=0)
    asked = parser.parse_args()
    with server(asked.run) as (url, process):
        turns(url, asked.turns, asked.tokens)
        if asked.minutes:
            rough(url, process, asked.minutes)


if __name__ == "__main__":
    main()

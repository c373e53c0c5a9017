"""Measure vggsearch serve under load: many clients at once, and what its memory does over many requests.

    python benchmarks/serve_load.py INDEX

The server runs in a process of its own. Every answer is compared with that of ImageIndex.query_many for the same
picture, which is timed before and after; `ratio` is the rate of the server by that of query_many. Then come 10,000
requests of all kinds, and 10,000 pictures that are garbage. The result is a line of JSON. On two idle cores, the
sample folder of `make demo` takes about five minutes. On a machine that does other work, compare CPU times rather
than rates. With --rerank, results are re-ranked, which takes much longer.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import httpx

from vggsearch.image_index import ImageIndex
from vggsearch.query.options import QueryResult

COUNT = 5  # matches of each query
TOKEN = "a-token-for-the-benchmark"  # noqa: S105 - of a server on this machine, for its time alone
AT_ONCE = 8  # requests of the run for memory
QUERY_EACH = 4  # of these, one is a query
WARM_UP = 0.2  # of these, after which memory is compared

Found = list[tuple[str, float]]


@contextmanager
def serving(index: Path) -> Iterator[tuple[str, int]]:
    """Start a server; yield its address and the number of its process."""
    command = [sys.executable, "-m", "vggsearch", "serve", "--index", str(index), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"VGGSEARCH_TOKEN": TOKEN}
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        found = re.search(r"http://[\d.:]+", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        yield found[0], process.pid
    finally:
        process.terminate()
        process.wait(60)


def expected(index: Path, pictures: list[Path], *, rerank: bool) -> tuple[list[Found], float, float]:
    """Return what each picture finds, how many queries per second query_many answers, and its CPU time for each."""
    with ImageIndex.open(index) as opened:
        data = [picture.read_bytes() for picture in pictures]
        list(opened.query_many(iter(data[:2]), COUNT, rerank=rerank))  # loads the network
        began, used = time.monotonic(), cpu_of(os.getpid())
        answers = list(opened.query_many(iter(data), COUNT, rerank=rerank))
        seconds, used = time.monotonic() - began, cpu_of(os.getpid()) - used
    found = [
        [(match.path, match.similarity) for match in each.matches]
        for each in answers
        if isinstance(each, QueryResult)
    ]
    return found, len(data) / seconds, used / len(data)


async def ask(client: httpx.AsyncClient, picture: Path, *, rerank: bool) -> tuple[Found | None, float]:
    """Return the answer to a picture, None for an error, and how long it took in seconds."""
    began = time.monotonic()
    data = {"count": str(COUNT), "rerank": str(rerank)}
    while True:
        response = await client.post("/api/query", files={"image": picture.read_bytes()}, data=data)
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(float(response.headers["Retry-After"]))
    seconds = time.monotonic() - began
    if response.status_code != httpx.codes.OK:
        return None, seconds
    return [(match["path"], match["similarity"]) for match in response.json()["matches"]], seconds


async def many(
    address: str, pictures: list[Path], clients: int, queries: int, *, rerank: bool
) -> list[tuple[int, Found | None, float]]:
    """Let clients ask at once, each one question after the other; return picture, answer and seconds of each."""
    async with client_of(address, clients) as client:

        async def one(number: int) -> list[tuple[int, Found | None, float]]:
            places = [(number * queries + at) % len(pictures) for at in range(queries)]
            return [(place, *await ask(client, pictures[place], rerank=rerank)) for place in places]

        return [each for answers in await asyncio.gather(*map(one, range(clients))) for each in answers]


async def mixed(address: str, pictures: list[Path], requests: int) -> Counter[int]:
    """Send requests of all kinds, one in four of them a query; return how often each status was the answer."""
    async with client_of(address) as client:
        listed = (await client.get("/api/photos", params={"count": 1000})).json()["photos"]
        ids = [photo["id"] for photo in listed]

        async def one(number: int) -> Counter[int]:
            random, statuses = Random(number), Counter[int]()  # noqa: S311 - the same requests each time
            for at in range(requests // AT_ONCE):
                photo = f"/api/photos/{random.choice(ids)}"
                if at % QUERY_EACH == 0:
                    image = {"image": random.choice(pictures).read_bytes()}
                    response = await client.post("/api/query", files=image, data={"rerank": "false"})
                else:
                    kinds = (photo, f"{photo}/thumbnail", f"{photo}/original", "/api/counts", "/api/browse", "/")
                    response = await client.get(random.choice(kinds))
                statuses[response.status_code] += 1
            return statuses

        return sum(await asyncio.gather(*map(one, range(AT_ONCE))), Counter[int]())


async def garbage(address: str, requests: int) -> Counter[str]:
    """Send what is no picture, again and again; return how often that was refused in one line, or otherwise how."""
    async with client_of(address) as client:

        async def one(number: int) -> Counter[str]:
            random, outcomes = Random(number), Counter[str]()  # noqa: S311 - the same garbage each time
            for _ in range(requests // AT_ONCE):
                start = random.choice(
                    (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x00\x08\x00\x00WEBP")
                )
                sent = start + random.randbytes(random.randint(1, 4000))
                outcomes[outcome_of(await client.post("/api/query", files={"image": sent}))] += 1
            return outcomes

        return sum(await asyncio.gather(*map(one, range(AT_ONCE))), Counter[str]())


def outcome_of(response: httpx.Response) -> str:
    """Return "refused" for a problem of one line about the picture, else what the answer was."""
    is_problem = response.headers["content-type"] == "application/problem+json"
    if response.status_code == httpx.codes.UNPROCESSABLE_ENTITY and is_problem:
        detail = response.json()["detail"]
        return "refused" if detail and "\n" not in detail else f"no line: {detail!r}"
    return str(response.status_code)


def client_of(address: str, connections: int = AT_ONCE) -> httpx.AsyncClient:
    """Return a client that has the token."""
    headers, limits = {"Authorization": f"Bearer {TOKEN}"}, httpx.Limits(max_connections=connections)
    return httpx.AsyncClient(base_url=address, headers=headers, timeout=600, limits=limits)


def cpu_of(process: int) -> float:
    """Return the CPU time of a process and its children, such as decoder processes, in seconds."""
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = file.read_text().rpartition(")")[2].split()
            if process in (int(file.parent.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_of(process: int) -> int:
    """Return the memory of a process in bytes, without that of its decoder processes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def measured(index: Path, given: argparse.Namespace) -> dict[str, object]:
    """Return the figures of one run."""
    with ImageIndex.open(index) as opened:
        root = opened.root or Path()
        pictures = [root / path for path in opened.paths()]
    rerank, asked = given.rerank, pictures * given.repeat
    right, before, cpu_alone = expected(index, asked, rerank=rerank)
    with serving(index) as (address, process):
        asyncio.run(many(address, pictures, 1, 3, rerank=rerank))  # waits until the network is loaded
        began, used = time.monotonic(), cpu_of(process)
        answers = asyncio.run(many(address, pictures, given.clients, given.queries, rerank=rerank))
        seconds, used = time.monotonic() - began, cpu_of(process) - used
        _, after, _ = expected(index, asked, rerank=rerank)
        statuses = asyncio.run(mixed(address, pictures, int(given.requests * WARM_UP)))
        memory = [memory_of(process)]
        statuses += asyncio.run(mixed(address, pictures, int(given.requests * (1 - WARM_UP))))
        memory.append(memory_of(process))
        outcomes = asyncio.run(garbage(address, given.garbage))
        memory.append(memory_of(process))
    times = sorted(time for _, _, time in answers)
    rate, alone = len(answers) / seconds, statistics.mean((before, after))
    return {
        "photos": len(pictures),
        "clients": given.clients,
        "queries": given.queries,
        "rerank": rerank,
        "errors": sum(found is None for _, found, _ in answers),
        "wrong": sum(found is not None and found != right[place] for place, found, _ in answers),
        "p50_s": round(statistics.median(times), 3),
        "p99_s": round(times[int(0.99 * len(times))], 3),
        "per_s": round(rate, 1),
        "query_many_per_s": [round(before, 1), round(after, 1)],
        "ratio": round(rate / alone, 3),
        "cpu_ms": round(1000 * used / len(answers), 1),
        "query_many_cpu_ms": round(1000 * cpu_alone, 1),
        "statuses": dict(statuses),
        "garbage": dict(outcomes),
        "memory_mb": [size >> 20 for size in memory],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure vggsearch serve under load.")
    parser.add_argument("index", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--garbage", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=10, help="how often query_many searches for each picture")
    parser.add_argument("--rerank", action="store_true")
    given = parser.parse_args()
    print(json.dumps(measured(given.index, given)))

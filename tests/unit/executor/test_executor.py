"""The executor runs code, one call at a time, and nothing that the code does outlives its call or reaches further."""

import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from unit.executor.container import GROUP, ROOT, Container, container, needs_namespaces, until

pytestmark = needs_namespaces


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    with container() as found:
        yield found


def test_what_code_prints_comes_back_in_its_order_with_its_exit_status(box: Container) -> None:
    code = "import sys\nprint('one')\nprint('two', file=sys.stderr)\nprint('three')\nsys.exit(3)"
    end = box.call("python", code)
    assert (end["output"], end["status"], end["signal"], end["stopped"]) == ("one\ntwo\nthree\n", 3, None, None)
    end = box.call("shell", "echo one; echo two >&2; echo three; kill -SEGV $$")
    assert (end["output"], end["status"], end["signal"], end["stopped"]) == ("one\ntwo\nthree\n", None, 11, None)


def test_code_starts_in_the_workspace_and_finds_its_modules_there(box: Container) -> None:
    box.shell("echo 'answer = 42' > mine.py")
    assert box.python("import mine, os; print(mine.answer, os.getcwd())") == f"42 {box.workspace}\n"
    assert not (box.workspace / "__pycache__").exists()


def test_files_are_writable_for_the_group_that_all_containers_share(box: Container) -> None:
    box.shell("mkdir made; echo text > made/file")
    found = (box.workspace / "made" / "file").stat()
    assert found.st_mode & 0o777 == 0o664
    assert not ROOT or found.st_gid == GROUP
    assert (box.workspace / "made").stat().st_mode & 0o775 == 0o775


def test_files_stay_in_the_workspace_and_nowhere_else(box: Container) -> None:
    box.shell("echo kept > kept; echo gone > $TMPDIR/gone; echo gone > /dev/shm/gone")
    assert box.shell("cat kept; ls $TMPDIR /dev/shm/ | grep gone || true") == "kept\n"


def test_code_is_told_nothing_of_the_executors_settings(box: Container) -> None:
    names = json.loads(box.python("import json, os; print(json.dumps(list(os.environ)))"))
    assert not any(name.startswith("TENURE_") for name in names)
    assert {"HOME", "TMPDIR", "PATH"} <= set(names)


def test_a_python_error_shows_the_line(box: Container) -> None:
    end = box.call("python", "x = 1\nraise ValueError(f'not {x}')")
    assert end["status"] == 1
    assert "line 2" in end["output"]
    assert "ValueError: not 1" in end["output"]


def test_an_endless_loop_is_ended_by_the_clock(box: Container) -> None:
    end = box.call("python", "print('begun')\nwhile True: pass", timeout=0.5)
    assert (end["output"], end["stopped"]) == ("begun\n", "timeout")
    assert box.shell("echo next") == "next\n"


def test_a_flood_of_output_is_bounded_and_kept_in_a_file(box: Container) -> None:
    end = box.call("python", "for n in range(500_000): print(f'line {n}')", keep="tool-results/flood.txt")
    assert len(end["output"]) < 30_000
    assert end["output"].startswith("line 0\n")
    assert end["output"].endswith("line 499999\n")
    kept = box.workspace / "tool-results" / "flood.txt"
    assert f"{kept} has all {kept.stat().st_size} bytes" in end["output"]
    assert kept.read_text().splitlines() == [f"line {n}" for n in range(500_000)]


def test_an_allocation_beyond_the_limit_is_an_error_in_the_code(box: Container) -> None:
    code = "try:\n    bytearray(10 << 30)\nexcept MemoryError:\n    print('refused')"
    assert box.python(code) == "refused\n"


def test_a_fork_bomb_stays_within_its_bound_and_ends_with_its_call(box: Container) -> None:
    code = """
import os, time
made = 0
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
    except BlockingIOError:
        break
print(made)
"""
    assert 10 <= int(box.python(code)) <= 23
    assert box.others() == 0
    end = box.call("shell", "bomb() { bomb | bomb & }; bomb; sleep 60", timeout=1)
    assert end["stopped"] == "timeout" or "fork" in end["output"]
    assert box.others() == 0


def test_no_process_outlives_its_call(box: Container) -> None:
    code = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print('left')
"""
    assert box.python(code) == "left\n"
    assert box.shell("sleep 60 & echo left") == "left\n"
    assert box.others() == 0


def test_a_call_ends_when_its_client_goes_away(box: Container) -> None:
    with box.connect() as client:
        request = {"language": "shell", "code": "touch began; sleep 60; touch after", "timeout": 90, "keep": "kept"}
        client.sendall(json.dumps(request).encode() + b"\n")
        until((box.workspace / "began").exists)
    assert box.shell("ls after 2>/dev/null || echo none") == "none\n"
    assert box.others() == 0


@pytest.mark.parametrize(
    "request_line",
    [b"\n", b"[]\n", b"{}\n", b'{"language": "perl", "code": "", "timeout": 1, "keep": "kept"}\n', b"\xff\n", b"1"],
)
def test_a_bad_request_is_refused_and_the_next_one_served(box: Container, request_line: bytes) -> None:
    with box.connect() as client:
        client.sendall(request_line)
        client.shutdown(socket.SHUT_WR)
        answer = client.makefile("rb").read()
    assert answer == b"" or json.loads(answer)["error"] == "the request is not as it must be"
    assert box.shell("echo next") == "next\n"


def test_code_cannot_end_stop_or_look_into_the_executor(box: Container) -> None:
    code = """
import os, signal
for number in set(signal.Signals) - {signal.SIGCHLD}:
    os.kill(1, number)
for name in ("mem", "environ", "maps", "fd/0"):
    try:
        open(f"/proc/1/{name}", "rb").read()
        print("read", name)
    except OSError:
        pass
print("done")
"""
    assert box.python(code) == "done\n"
    assert box.shell("echo next") == "next\n"
    assert box.process.poll() is None


def test_code_cannot_queue_itself_at_the_executor(box: Container) -> None:
    code = f"""
import json, socket
client, keeper = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
for one in (client, keeper):
    one.connect({str(box.socket)!r})
request = {{"language": "shell", "code": "touch outlived", "timeout": 9, "keep": "kept"}}
client.sendall(json.dumps(request).encode() + b"\\n")
socket.send_fds(keeper, [b"x"], [client.fileno()])  # on its way, the client's end is open without any process
print("queued")
"""
    assert box.python(code) == "queued\n"
    assert box.shell("ls outlived 2>/dev/null || echo none") == "none\n"


@pytest.mark.parametrize(
    "code",
    ["rm $S", "rm $S; mkdir -p $S/in/side; chmod 0 $S/in", "rm $S; ln -s /nowhere $S", "touch $S.2 $S.3; mkdir $S.4"],
)
def test_a_socket_that_code_has_spoilt_is_made_anew(box: Container, code: str) -> None:
    box.call("shell", f"S={box.socket}; {code}")
    until(lambda: os.listdir(box.run) == [box.socket.name] and box.socket.is_socket())
    assert box.shell("echo next") == "next\n"
    assert box.socket.stat().st_mode & 0o777 == 0o660


def test_deep_and_closed_directories_do_not_stay_in_memory(box: Container) -> None:
    code = """
import os
os.chdir(os.environ["TMPDIR"])
for _ in range(3000):
    os.mkdir("d")
    os.chdir("d")
open("file", "w").close()
os.chdir(os.environ["TMPDIR"])
os.mkdir("closed")
os.mkdir("closed/inner")
os.chmod("closed/inner", 0)
os.chmod("closed", 0)
"""
    box.python(code)
    assert os.listdir(box.tmp) == []


def test_code_that_cannot_be_started_is_an_answer() -> None:
    with container(TENURE_MAX_PROCESSES="1") as box:
        for _ in range(2):
            end = box.call("shell", "echo never")
            assert end == {"event": "ended", "error": "Resource temporarily unavailable"}


def test_a_full_disk_ends_the_call_and_the_next_one_can_delete() -> None:
    with container(volume="16m") as box:
        end = box.call("shell", "for n in $(seq 1000); do head -c 65536 /dev/zero >> big; sleep 0.01; done")
        assert end["stopped"] == "disk"
        full = box.call("shell", "head -c 16777216 /dev/zero > more; echo $?")
        assert full["stopped"] == "disk" or full["output"].endswith("1\n")
        assert box.shell("rm big more; echo deleted") == "deleted\n"
        assert box.shell("echo fits > small; cat small") == "fits\n"


def test_output_that_finds_no_place_is_still_shown() -> None:
    with container(volume="1m") as box:
        end = box.call("python", "for n in range(300_000): print(f'line {n}')")
        assert end["output"].startswith("line 0\n")
        assert end["stopped"] == "disk" or "No space left on device" in end["output"]


def test_the_executor_ends_when_the_container_is_told_to() -> None:
    with container() as box:
        box.terminate()
        assert box.process.wait(10) == 0


def test_a_call_that_runs_when_the_container_is_told_to_end_is_still_answered() -> None:
    with container() as box, ThreadPoolExecutor(1) as pool:
        call = pool.submit(box.shell, "touch begun; until test -e go; do sleep 0.02; done; echo done")
        until((box.workspace / "begun").exists)
        box.terminate()
        (box.workspace / "go").touch()
        assert call.result(30) == "done\n"
        assert box.process.wait(10) == 0


def test_it_does_not_start_without_its_walls() -> None:
    with container(start=False) as box:
        said = box.start("-s").communicate(timeout=30)[1]
        assert "start it as `python3 -I`" in said
        assert box.process.returncode == 1
    with container(start=False, TENURE_MEMORY_BYTES="much") as box:
        assert "its environment is not as it must be" in box.start().communicate(timeout=30)[1]

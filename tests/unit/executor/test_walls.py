"""Without the network, code can open no socket but a Unix one, by whatever call; with it, it can."""

import ast
import errno
import platform
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tenure_executor
from tenure_executor.errors import CannotServe
from tenure_executor.walls import MACHINES, seccomp_program
from unit.executor.container import Container, container, needs_namespaces

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
REFUSED, UNKNOWN = 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS


def verdict(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """What a filter says of a system call: an interpreter of the instructions that it uses."""
    data = struct.pack("=IIQQ", number, architecture, 0, argument)
    accumulator = at = 0
    while True:
        code, then, otherwise, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif code == 0x15:
            at += then if accumulator == value else otherwise
        elif code == 0x35:
            at += then if accumulator >= value else otherwise
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_refuses_sockets_on_each_machine(machine: str) -> None:
    architecture, sockets, refused = MACHINES[machine]
    denied, allowed = seccomp_program(machine, network=False), seccomp_program(machine, network=True)
    for number in sockets:
        assert verdict(denied, architecture, number, socket.AF_UNIX) == ALLOWED
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET, socket.AF_NETLINK, socket.AF_VSOCK, 0, 99):
            assert verdict(denied, architecture, number, family) == REFUSED
            assert verdict(allowed, architecture, number, family) == ALLOWED
        # The kernel takes a family of 32 bits: what is above must not deceive the filter.
        assert verdict(denied, architecture, number, (1 << 32) | socket.AF_INET) == REFUSED
    for number in refused:
        assert verdict(denied, architecture, number) == verdict(allowed, architecture, number) == REFUSED
    for number in (0, 1, 59, 221, 300):
        assert verdict(denied, architecture, number) == ALLOWED
    for program in (denied, allowed):
        assert verdict(program, 0x40000003, 41) == KILLED
        assert verdict(program, architecture, 0x40000000 | sockets[0], socket.AF_INET) == UNKNOWN
        assert verdict(program, architecture, 0xFFFFFFFF) == UNKNOWN


def test_a_machine_without_a_filter_is_refused() -> None:
    with pytest.raises(CannotServe, match="riscv64"):
        seccomp_program("riscv64", network=False)


SOURCES = sorted(Path(tenure_executor.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_users_image_needs_nothing_but_python_3_9(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "tenure_executor"}
    has_code = any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
    future = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    assert future or not has_code or source.name == "install.py"  # which runs in our own image


@pytest.fixture(scope="module")
def box() -> Iterator[Container]:
    with container() as found:
        yield found


TRY = """
import socket
for family in ({families}):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        for make in (socket.socket, socket.socketpair):
            try:
                make(family, kind)
                print("opened", family, kind)
            except OSError as error:
                print(error.errno)
"""


@needs_namespaces
@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
def test_code_opens_no_socket_that_leads_out(box: Container, family: str) -> None:
    assert set(box.python(TRY.format(families=f"socket.{family},")).split()) == {str(errno.EACCES)}


@needs_namespaces
def test_code_may_use_unix_sockets_of_its_own(box: Container) -> None:
    code = "import socket\na, b = socket.socketpair()\na.send(b'heard')\nprint(b.recv(9).decode())"
    assert box.python(code) == "heard\n"


@needs_namespaces
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize("number", [425, 426, 427, 101, 310, 438, 29, 240], ids=lambda number: f"call-{number}")
def test_calls_around_the_filter_are_refused(box: Container, number: int) -> None:
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall({number}, 0, 0, 0, 0, 0, 0), ctypes.get_errno())
"""
    assert box.python(code) == f"-1 {errno.EACCES}\n"


@needs_namespaces
@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_the_32_bit_way_into_the_kernel_is_closed(box: Container) -> None:
    code = """
import ctypes, mmap
# mov eax, 359 (socket of i386); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret
body = bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3")
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(body)
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
"""
    end = box.call("python", code)
    assert (end["output"], end["signal"]) == ("", 31)  # SIGSYS


@needs_namespaces
def test_code_cannot_reach_an_abstract_address_of_another_container(box: Container) -> None:
    if "landlock" not in box.walls:
        pytest.skip("the kernel has no Landlock that knows of abstract addresses")
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"\0tenure-test-{box.process.pid}"
        listener.bind(name)
        listener.listen()
        code = f"""
import socket
try:
    socket.socket(socket.AF_UNIX).connect({name!r})
    print("connected")
except PermissionError:
    print("refused")
own = socket.socket(socket.AF_UNIX)
own.bind({name + "-own"!r})
own.listen()
socket.socket(socket.AF_UNIX).connect({name + "-own"!r})
"""
        assert box.python(code) == "refused\n"


@needs_namespaces
def test_with_the_network_allowed_code_has_it() -> None:
    with container(TENURE_NETWORK="Allowed") as box, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 5)\nprint('connected')"
        assert box.python(code) == "connected\n"


@needs_namespaces
def test_no_limit_can_be_raised(box: Container) -> None:
    code = """
import resource
for which in ("NPROC", "DATA", "CORE", "FSIZE"):
    number = getattr(resource, f"RLIMIT_{which}")
    soft, hard = resource.getrlimit(number)
    try:
        resource.setrlimit(number, (soft + 1, hard + 1))
        print("raised", which)
    except ValueError:
        print(which, soft == hard and soft >= 0)
"""
    assert box.python(code).split() == ["NPROC", "True", "DATA", "True", "CORE", "True", "FSIZE", "True"]


@needs_namespaces
def test_memory_and_cpu_that_are_short_go_to_the_executor(box: Container) -> None:
    code = "import os\nprint(open('/proc/self/oom_score_adj').read(), os.nice(0))"
    badness, niceness = map(int, box.python(code).split())
    assert badness == 1000
    assert niceness >= 10

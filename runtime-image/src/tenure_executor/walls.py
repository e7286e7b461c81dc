"""The walls around the code: what no process of the container can do, from the first moment on."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import struct
from typing import Any

from tenure_executor.errors import CannotServe

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 4, 22, 38, 2
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446
KILL, REFUSE, UNKNOWN, ALLOW = 0x80000000, 0x00050000 | errno.EACCES, 0x00050000 | errno.ENOSYS, 0x7FFF0000
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
X32 = 0x40000000
# linux/audit.h; then, from the kernel's tables of system calls: socket and socketpair; ptrace and what reads or takes
# from another process (process_vm_readv, process_vm_writev, pidfd_getfd); io_uring, which opens sockets by itself; and
# shmget, semget, msgget and mq_open, whose objects would outlive the call.
MACHINES = {
    "x86_64": (0xC000003E, (41, 53), (101, 310, 311, 438, 425, 426, 427, 29, 64, 68, 240)),
    "aarch64": (0xC00000B7, (198, 199), (117, 270, 271, 438, 425, 426, 427, 194, 190, 186, 180)),
}

libc = ctypes.CDLL(None, use_errno=True)


def instruction(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction of classic BPF."""
    return struct.pack("=HBBI", code, then, otherwise, value)


def seccomp_program(machine: str, network: bool) -> bytes:
    """The filter of system calls. Raises `CannotServe` for a machine that it does not know."""
    if machine not in MACHINES:
        raise CannotServe(f"no filter of system calls is known for {machine}, only for {' and '.join(MACHINES)}")
    architecture, sockets, refused = MACHINES[machine]
    # Other architectures have other numbers, and 32-bit x86 can make any call by `socketcall`.
    program = [instruction(LOAD, 4), instruction(EQUAL, architecture, 1), instruction(RETURN, KILL)]
    program += [instruction(LOAD, 0), instruction(AT_LEAST, X32, 0, 1), instruction(RETURN, UNKNOWN)]
    for number in refused:
        program += [instruction(EQUAL, number, 0, 1), instruction(RETURN, REFUSE)]
    for number in () if network else sockets:
        program += [instruction(EQUAL, number, 0, 4), instruction(LOAD, 16)]  # the low half of the first argument
        program += [instruction(EQUAL, socket.AF_UNIX, 0, 1), instruction(RETURN, ALLOW), instruction(RETURN, REFUSE)]
    return b"".join([*program, instruction(RETURN, ALLOW)])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def prctl(option: int, value: int, pointer: Any = None) -> None:
    """Raises `OSError`."""
    if libc.prctl(option, ctypes.c_ulong(value), pointer, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def look(allowed: bool) -> None:
    """Whether others of the same uid may look into this process. Raises `OSError`."""
    prctl(PR_SET_DUMPABLE, int(allowed))


def confine(network: bool) -> list[str]:
    """Puts up the walls for this process and all that it will ever start, and says which.

    Raises `CannotServe` if the filter of system calls does not stand. Landlock comes on top where the kernel has it: it
    knows abstract Unix addresses, which belong to the network of the pod and so to all of its containers.
    """
    try:
        look(allowed=False)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        program = seccomp_program(platform.machine(), network)
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(program) // 8, program)))
    except OSError as error:
        raise CannotServe(f"the filter of system calls cannot be set: {error}") from error
    walls = ["seccomp"]
    if landlock(tcp=0 if network else 3, abstract=1):
        walls.append("landlock")
    for family in () if network else (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK):
        try:
            socket.socket(family, socket.SOCK_RAW if family == socket.AF_NETLINK else socket.SOCK_STREAM).close()
        except PermissionError:
            continue
        raise CannotServe(f"a socket of {family.name} can be opened although the network is denied")
    return walls


def landlock(tcp: int, abstract: int) -> bool:
    """Refuses to bind and connect TCP sockets, and to connect to abstract addresses of others. Whether it could."""

    def call(number: int, *arguments: Any) -> int:
        done: int = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
        return done

    if call(LANDLOCK_CREATE, None, 0, 1) < 6:  # the version of its interface
        return False
    ruleset = call(LANDLOCK_CREATE, struct.pack("=QQQ", 0, tcp, abstract), 24, 0)
    if ruleset < 0:
        return False
    stands = call(LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return stands


def limit(processes: int, memory: int, volume: int) -> None:
    """Sets the limits that every call inherits: bytes of the container's memory and of its volume, and a number.

    Raises `CannotServe`.
    """
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: processes,
        # So that too large an allocation is an error in the code, not its end. Executor and files in memory need some.
        resource.RLIMIT_DATA: memory // 8 * 7,
        resource.RLIMIT_FSIZE: volume,
    }
    for which, most in limits.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(which, (most, most))
        except (OSError, ValueError) as error:
            raise CannotServe(f"limit {which} cannot be set to {most}: {error}") from error

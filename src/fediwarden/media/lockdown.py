"""The walls of the cage: resource limits, no new privileges, Landlock without any right, a list of allowed system calls.

Standard library only (`ctypes`), Linux only; what the running kernel or processor cannot do is reported, not hidden.
Nothing here decodes, and nothing here can be undone: `lock` is called once, in a child that then opens foreign bytes.
Numbers of system calls: the kernel's `syscall_64.tbl` for x86_64, `asm-generic/unistd.h` for aarch64.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Mapping
from dataclasses import dataclass

LAYERS = ("rlimits", "no_new_privs", "landlock", "seccomp")

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_VMA = 15, 16, 0x53564D41
_SIGKILL = 9
_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4
_F_GETFD, _F_GETFL = 1, 3

_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same on every architecture
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# what a decoder of bytes in memory needs; anything that names a file, a process or an address is absent
_CALLS: Mapping[str, tuple[int | None, int | None]] = {  # name: (x86_64, aarch64)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "ppoll": (271, 73),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "mincore": (27, 232),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "sigaltstack": (131, 132),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "set_robust_list": (273, 99),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_GUARDED: Mapping[str, tuple[int, int]] = {  # allowed by argument only
    "clone": (56, 220),
    "clone3": (435, 435),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "fcntl": (72, 25),
    "prctl": (157, 167),
    "tgkill": (234, 131),
}


@dataclass(frozen=True, slots=True)
class Walls:
    """The numbers behind the resource limits of one child."""

    memory_bytes: int  # of address space, over what the process holds already
    cpu_seconds: int


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _prctl(libc: ctypes.CDLL, option: int, *args: int) -> bool:
    full = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
    return int(libc.prctl(ctypes.c_int(option), *full)) == 0


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent`, its single-threaded parent, ends; exits at once if that happened."""
    _prctl(_libc(), _PR_SET_PDEATHSIG, _SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def lock(walls: Walls, parent: int) -> dict[str, bool]:
    """Put up every wall, for good, and say which of `LAYERS` stand; a failing one does not raise."""
    libc = _libc()
    _become_nobody()
    die_with_parent(parent)  # after the change of user, which clears it
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    return {
        "rlimits": _limit(walls),
        "no_new_privs": _no_new_privs(libc),
        "landlock": _landlock(libc),
        "seccomp": _seccomp(libc),
    }


def _no_new_privs(libc: ctypes.CDLL) -> bool:
    return _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)


def _become_nobody() -> None:
    """A child of root has no use for root; where a container maps no such user, the other walls must do."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    except OSError:
        return


def _limit(walls: Walls) -> bool:
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib is not preloaded for this one read
            held = int(statm.read().split()[0]) * resource.getpagesize()
        for limit, value, hard in (
            (resource.RLIMIT_AS, held + walls.memory_bytes, held + walls.memory_bytes),
            (resource.RLIMIT_CPU, walls.cpu_seconds, walls.cpu_seconds + 2),
            (resource.RLIMIT_FSIZE, 0, 0),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_NOFILE, 16, 16),
            (resource.RLIMIT_NPROC, 0, 0),  # decoders run single-threaded here, so not even threads
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
        ):
            resource.setrlimit(limit, (value, hard))
    except (OSError, ValueError):
        return False
    return True


def _landlock(libc: ctypes.CDLL) -> bool:
    """Handle every right the running kernel knows and grant none; network and scopes only exist on newer kernels."""
    abi = int(libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    if abi < 1:
        return False
    files = {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)
    network = 2 if abi >= 4 else 0
    scopes = 2 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", (1 << files) - 1, (1 << network) - 1, (1 << scopes) - 1)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = int(libc.syscall(_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint(0)))
    if ruleset < 0:
        return False
    try:
        return int(libc.syscall(_LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))) == 0
    finally:
        os.close(ruleset)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        return False
    code = _filter(machine, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    return int(libc.prctl(ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(2), ctypes.byref(program), 0, 0)) == 0


def _filter(machine: str, pid: int) -> bytes:
    """The Berkeley packet filter program: little-endian 8-byte instructions over `struct seccomp_data`."""
    column = 0 if machine == "x86_64" else 1
    allow, kill = 0x7FFF0000, 0x80000000
    refuse, unknown = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
    load, equal, has, give = 0x20, 0x15, 0x45, 0x06
    number, architecture, first = 0, 4, 16  # offsets; argument n lies at first + 8 n, its low half first

    program: list[tuple[int, int, int, int]] = [
        (load, 0, 0, architecture),
        (equal, 1, 0, _AUDIT_ARCH[machine]),
        (give, 0, 0, kill),
        (load, 0, 0, number),
    ]
    for numbers in _CALLS.values():
        if (call := numbers[column]) is not None:
            program += [(equal, 0, 1, call), (give, 0, 0, allow)]

    def guarded(name: str, argument: int, *tests: tuple[int, int], matched: int, otherwise: int) -> None:
        body = [(load, 0, 0, first + 8 * argument)]
        for test, value in tests:
            body += [(test, 0, 1, value), (give, 0, 0, matched)]
        body.append((give, 0, 0, otherwise))
        program.append((equal, 0, len(body), _GUARDED[name][column]))
        program.extend(body)

    # glibc falls back from clone3 to clone, whose flags can be seen: threads yes, processes no
    program.extend([(equal, 0, 1, _GUARDED["clone3"][column]), (give, 0, 0, unknown)])
    guarded("clone", 0, (has, _CLONE_THREAD), matched=allow, otherwise=refuse)
    guarded("mmap", 2, (has, _PROT_EXEC), matched=refuse, otherwise=allow)
    guarded("mprotect", 2, (has, _PROT_EXEC), matched=refuse, otherwise=allow)
    guarded("fcntl", 1, (equal, _F_GETFD), (equal, _F_GETFL), matched=allow, otherwise=refuse)
    guarded("prctl", 0, (equal, _PR_SET_NAME), (equal, _PR_GET_NAME), (equal, _PR_SET_VMA), matched=allow, otherwise=refuse)
    guarded("tgkill", 0, (equal, pid), matched=allow, otherwise=refuse)  # abort() and nothing else
    program.append((give, 0, 0, refuse))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)

"""What the reading child may no longer ask the kernel for: network, other programs, other processes.

A seccomp filter, as in seccomp(2): the calls below fail with EPERM from the moment it is installed, for ever. Everything
else stays allowed, bounded by resource limits; a list of what is allowed would break with every version of DuckDB.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from typing import Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)
_SET_NO_NEW_PRIVILEGES: Final = 38  # linux/prctl.h
_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_LOAD_WORD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_X32: Final = 0x40000000  # the same calls under other numbers, beside those of x86-64
_AT_NUMBER, _AT_ARCHITECTURE, _AT_FIRST_ARGUMENT = 0, 4, 16  # struct seccomp_data

# Machine: (AUDIT_ARCH, calls that always fail, calls that fail unless their first argument is the own process id).
# In order: socket, connect, bind, accept, execve, execveat, ptrace, process_vm_readv and _writev, tkill, mount, bpf,
# userfaultfd, io_uring_setup, keyctl, rt_sigqueueinfo, rt_tgsigqueueinfo, pidfd_send_signal, pidfd_getfd; kill, tgkill.
_MACHINES: Final = {
    "x86_64": (
        0xC000003E,
        (41, 42, 49, 43, 59, 322, 101, 310, 311, 200, 165, 321, 323, 425, 250, 129, 297, 424, 438),
        (62, 234),
    ),
    "aarch64": (
        0xC00000B7,
        (198, 203, 200, 202, 221, 281, 117, 270, 271, 130, 40, 280, 282, 425, 219, 138, 240, 424, 438),
        (129, 131),
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def forbid() -> bool:
    """Install the filter in this process. It cannot be taken off again.

    Returns:
        whether there is one: False where the system is not Linux on a known machine.

    Raises:
        OSError: the kernel refused it.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return False
    program = [_Instruction(*each) for each in _program(*machine, os.getpid())]
    instructions = (_Instruction * len(program))(*program)
    if LIBC.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or LIBC.prctl(
        _SET_SECCOMP, _MODE_FILTER, ctypes.byref(_Program(len(instructions), instructions)), 0, 0
    ):
        code = ctypes.get_errno()
        raise OSError(code, f"the kernel refused the filter of system calls: {os.strerror(code)}")
    return True


def _program(
    architecture: int, never: tuple[int, ...], own: tuple[int, ...], process: int
) -> list[tuple[int, int, int, int]]:
    program = [
        (_LOAD_WORD, 0, 0, _AT_ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),  # another calling convention would have other numbers
        (_LOAD_WORD, 0, 0, _AT_NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in never:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for number in own:
        program += [
            (_EQUAL, 0, 4, number),
            (_LOAD_WORD, 0, 0, _AT_FIRST_ARGUMENT),
            (_EQUAL, 1, 0, process),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*program, (_RETURN, 0, 0, _ALLOW)]

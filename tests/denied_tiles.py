"""Run a command where the kernel refuses AMX's tiles, as it does on some virtual machines.

python denied_tiles.py COMMAND...         # Linux on x86-64 only
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

ARCH_PRCTL, REQUEST_PERMISSION, EPERM = 158, 0x1023, 1
NO_NEW_PRIVILEGES, SET_FILTER, FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
REFUSE, ALLOW = 0x00050000 | EPERM, 0x7FFF0000


def deny() -> None:
    """Install a filter that answers one system call with "not permitted"; children inherit it."""
    program = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 3, ARCH_PRCTL),
        (LOAD, 0, 0, 16),
        (JUMP_IF_EQUAL, 0, 1, REQUEST_PERMISSION),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(SET_FILTER, FILTER, header) == 0, ctypes.get_errno()


if __name__ == "__main__":
    deny()
    os.execvp(sys.argv[1], sys.argv[1:])

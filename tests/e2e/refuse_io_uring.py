#!/usr/bin/python3
"""refuse_io_uring.py ERRNO COMMAND…: runs COMMAND where io_uring_setup fails with ERRNO, as under a container's seccomp profile (EPERM), on a
kernel without io_uring (ENOSYS) or with little locked memory (ENOMEM). A filter of seccomp(2), which needs no rights."""
import ctypes
import errno
import os
import struct
import sys

IO_URING_SETUP = 425
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # of classic BPF
ALLOW, FAIL = 0x7FFF0000, 0x00050000            # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2   # of prctl(2)


class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def main():
    number = getattr(errno, sys.argv[1])
    lines = [(LOAD, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, FAIL | number), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = Program(len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.prctl(SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0) != 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])


main()

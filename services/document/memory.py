"""Memory: what keeps that of the process small however many files go through it."""

import ctypes
import sys

LITTLE_AHEAD = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))
"""Options of a gRPC server: how much a client may send ahead of what was asked for. By itself, gRPC lets that grow to
megabytes a stream."""

_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 64 * 1024


def give_back() -> None:
    """Has the C library give memory back as soon as it is freed, of the size of messages and larger.

    glibc raises this threshold by itself, and keeps such pieces in several arenas: twice what is used (mallopt(3)).
    """
    if (
        sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None
    ):  # musl has none
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)

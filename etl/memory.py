"""How much memory there is, and handing what was freed back to the system."""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

# of a container, and of a service with a limit (control groups, version 2)
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_M_ARENA_MAX = -8  # of glibc's malloc.h


def memory_bytes() -> int:
    """Return the memory of the machine, or of the container where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no control groups here, or "max": no limit
        return machine


def give_back_memory() -> None:
    """Return freed blocks that the C library keeps: where threads hand blocks on, it keeps many.

    At ImageNet's size that is a third of a gigabyte. Only glibc has the call; elsewhere nothing is
    done.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def share_arenas() -> None:
    """Have all threads of this process take memory from two places, not from one each.

    A service with many threads would keep what each of them once needed at most. For glibc; to be
    called before the threads are there.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)

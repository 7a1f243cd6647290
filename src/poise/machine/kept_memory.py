"""Memory that stays with the process, so that a step that needs as much as the one before takes the same pages."""

import ctypes
import sys

# Names in malloc.h: from which size on a block is mapped by itself, and how much may lie free at the end of the heap.
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
LARGE = (2**30, 2**25)  # newer versions of the C library take the first, older ones at most the second


def keep_freed_memory() -> bool:
    """Ask the C library not to give freed blocks of up to a gigabyte back to the system; false where it cannot.

    Training and extraction free and take the same large blocks in every step. By default each comes as new pages that
    the system clears first, which on a processor is a tenth of a training step and more than half of an extraction.
    The memory in use at the peak stays taken until the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        change = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return any(change(MMAP_THRESHOLD, size) == 1 for size in LARGE) and change(TRIM_THRESHOLD, 2**31 - 1) == 1

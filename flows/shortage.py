"""Messages for a shortage of memory or threads (`ulimit -v`, `ulimit -u`): the limit and the next step."""

from __future__ import annotations

import resource

from pipelines.errors import SettingsError

LEAST_ADDRESSES = 3 * 2**29  # bytes; with less, OpenBLAS ends the process or waits for ever when it is imported
AGAIN = "start the same command again"
# Messages of Python, the dynamic linker, C++ and torch.
_NO_THREAD = ("can't start new thread", "pthread_create")
_NO_MEMORY = ("failed to map segment", "cannot allocate memory", "can't allocate memory", "bad_alloc", "out of memory")


def require_memory() -> None:
    """Raise if the limit on memory is too low for every command.

    Raises:
        SettingsError: `ulimit -v` allows less than a gigabyte and a half.
    """
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY and addresses < LEAST_ADDRESSES:
        raise SettingsError(
            f"this process may use {_kib(addresses)} of memory (ulimit -v) and needs at least {_kib(LEAST_ADDRESSES)}: "
            "raise the limit, or remove it with `ulimit -v unlimited`"
        )


def shortage_of(error: BaseException) -> str | None:
    """Return a message if memory or threads ran out; None for any other error.

    Args:
        error: An error of any library: few raise MemoryError, and many hide it in the text of another error.
    """
    text = str(error).lower()
    if "cuda" in text and "out of memory" in text:  # the limits of the system do not apply to the GPU
        return (
            f"the memory of the GPU ran out ({str(error).splitlines()[0][:200]}): free it, train with a smaller "
            f"train.batch, or set KINTSUGI_DEVICE=cpu, and {AGAIN}"
        )
    limits = []
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
    if addresses != resource.RLIM_INFINITY:
        limits.append(f"{_kib(addresses)} of memory (ulimit -v)")
    if any(words in text for words in _NO_THREAD):
        what = "no further thread can be started"
        processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if processes != resource.RLIM_INFINITY:
            limits.append(f"{processes} processes and threads (ulimit -u)")
    elif isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        what = "memory ran out"
    else:
        return None
    if limits:
        return f"{what}; the limits are {' and '.join(limits)}: raise them, or set KINTSUGI_WORKERS=1, and {AGAIN}"
    return f"{what}; no limit is set: free memory, or set KINTSUGI_WORKERS=1, and {AGAIN}"


def _kib(count: int) -> str:
    return f"{count // 1024} KiB"

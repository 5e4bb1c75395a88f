"""What the system says of its errors, which is English where no locale is set: msgids of the catalogue."""

from __future__ import annotations

SYSTEM = frozenset(
    (
        "Address already in use",
        "Broken pipe",
        "Cannot allocate memory",
        "Cannot assign requested address",
        "Connection refused",
        "Connection reset by peer",
        "Connection timed out",
        "Device or resource busy",
        "Disk quota exceeded",
        "Exec format error",
        "File exists",
        "File name too long",
        "Input/output error",
        "Is a directory",
        "Name or service not known",
        "Network is unreachable",
        "No address associated with hostname",
        "No route to host",
        "No space left on device",
        "No such file or directory",
        "No such process",
        "Not a directory",
        "Operation not permitted",
        "Permission denied",
        "Read-only file system",
        "Stale file handle",
        "Temporary failure in name resolution",
        "Too many levels of symbolic links",
        "Too many open files",
    )
)

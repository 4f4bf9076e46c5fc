"""The media library of one tenant: what may come in, and how it goes out."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from slugify import slugify

LIMIT: Final = 10_000_000
"""The largest file, in bytes."""

_MAGIC: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png", ".png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg", ".jpg"),
    (re.compile(rb"GIF8[79]a"), "image/gif", ".gif"),
    (re.compile(rb"RIFF....WEBP", re.S), "image/webp", ".webp"),
    (re.compile(rb"....ftyp(?:avif|avis)", re.S), "image/avif", ".avif"),
)
PICTURES: Final = frozenset(kind for _, kind, _ in _MAGIC)
FILES: Final = frozenset(
    ".pdf .txt .md .csv .json .svg .zip .odt .ods .odp .docx .xlsx .pptx .epub .mp3 .ogg .mp4 .webm".split()
)
"""What may be uploaded beside pictures. It is offered as a download and never shown, so nothing in it can run here."""

ACCEPT: Final = ",".join(sorted(PICTURES) + sorted(FILES))


def judge(filename: str, content: bytes) -> tuple[str, str] | str:
    """A clean name and a content type for a file, or what is wrong with it.

    A picture is known by its first bytes, whatever its name says.
    """
    path = PurePosixPath(filename.replace("\\", "/"))
    stem = slugify(path.stem, max_length=60) or "file"
    if not content:
        return f"{path.name} is empty."
    if len(content) > LIMIT:
        return f"{path.name} is larger than {LIMIT // 1_000_000} MB."
    for magic, kind, suffix in _MAGIC:
        if magic.match(content):
            return stem + suffix, kind
    suffix = path.suffix.lower()
    if suffix in FILES:
        return stem + suffix, "application/octet-stream"
    return f"{path.name} is of a kind that is not taken here: pictures and {', '.join(sorted(FILES))} are."


def free_name(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken."""
    path, number, free = PurePosixPath(name), 2, name
    while free in taken:
        free, number = f"{path.stem}-{number}{path.suffix}", number + 1
    return free


def headers(name: str, kind: str) -> dict[str, str]:
    """How a file goes out: a picture is shown, all else is downloaded, and nothing in it runs."""
    shown = kind in PICTURES
    return {
        "content-type": kind if shown else "application/octet-stream",
        "content-disposition": f'{"inline" if shown else "attachment"}; filename="{name}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "private, max-age=3600",
    }

"""FileRefs as cells hold them, and the names under which files are stored."""

from __future__ import annotations

import re

import msgspec

from sql.json_text import FileRef
from storage.file_records import NewFile

MAX_STEM = 50
MAX_EXTENSION = 10

_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_decode = msgspec.json.Decoder(FileRef).decode


class UploadedFile(msgspec.Struct, frozen=True):
    """A file that has arrived: `staged` is a synced file descriptor; the name is the client's, checked."""

    name: str
    size: int
    mime: str
    sha256: str
    staged: int


def new_file(file_id: int, upload: UploadedFile) -> NewFile:
    """What the store needs to know of a file that gets this id."""

    def text_of(folder: str) -> str:
        ref = {
            "id": str(file_id),
            "sub": folder,
            "name": upload.name,
            "size": upload.size,
            "mime": upload.mime,
            "sha256": upload.sha256,
        }
        return msgspec.json.encode(ref).decode()

    return NewFile(file_id, stored_name(file_id, upload.name), upload.size, text_of)


def stored_name(file_id: int, name: str) -> str:
    """`<id>-<name>.<extension>`: only small letters, digits and hyphens of the client's name, cut; `bin` without one.

    >>> stored_name(7, "Été à Paris.PDF")
    '7-t-paris.pdf'
    """
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    stem = _NOT_PLAIN.sub("-", stem.lower())[:MAX_STEM].strip("-")
    extension = extension.lower()
    if not (extension.isascii() and extension.isalnum() and len(extension) <= MAX_EXTENSION):
        extension = "bin"
    return f"{file_id}-{stem}.{extension}" if stem else f"{file_id}.{extension}"


def decode_ref(text: str) -> FileRef:
    """The FileRef of a cell's text, which the server made."""
    return _decode(text)

"""What a Python team writes for files in an hour: bare Starlette that streams a body to a file and serves it again.

No rights, no limits, no type, no row beside the file. `FILES_FOLDER` says where.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

FOLDER = Path(os.environ.get("FILES_FOLDER", "."))


async def _stream(request: Request) -> Response:
    """The body as it comes, written where it is read."""
    size = 0
    with (FOLDER / request.path_params["name"]).open("wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
            size += len(chunk)
    return JSONResponse({"size": size})


async def _stream_durably(request: Request) -> Response:
    """The same with its digest, and on the disk before the answer."""
    size, digest = 0, hashlib.sha256()
    with (FOLDER / request.path_params["name"]).open("wb") as file:
        async for chunk in request.stream():
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        await asyncio.to_thread(_sync, file)
    return JSONResponse({"size": size, "sha256": digest.hexdigest()})


async def _form(request: Request) -> Response:
    """The multipart form as Starlette parses it, copied to its place with its digest, on the disk before the answer."""
    async with request.form() as form:
        upload = form["file"]
        assert isinstance(upload, UploadFile)
        answer = await asyncio.to_thread(_keep, upload.file, FOLDER / request.path_params["name"])
    return JSONResponse(answer)


def _keep(source: BinaryIO, place: Path) -> dict[str, object]:
    digest = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]  # a spooled file is one
    source.seek(0)
    with place.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        _sync(file)
        return {"size": file.tell(), "sha256": digest}


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _download(request: Request) -> Response:
    return FileResponse(FOLDER / request.path_params["name"])


application = Starlette(
    routes=[
        Route("/stream/{name}", _stream, methods=["POST"]),
        Route("/durable/{name}", _stream_durably, methods=["POST"]),
        Route("/form/{name}", _form, methods=["POST"]),
        Route("/files/{name}", _download),
    ]
)

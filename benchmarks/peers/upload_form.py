"""Uploads as they are usually written: FastAPI's `UploadFile`, then minio-py."""

import asyncio
import io
import os
from typing import Annotated

from fastapi import FastAPI, File, UploadFile
from minio import Minio

app = FastAPI()
store = Minio(
    os.environ["SINK"],
    access_key=os.environ["SINK_KEY"],
    secret_key=os.environ["SINK_KEY"],
    secure=False,
    region="us-east-1",
)


@app.post("/upload/{name}")
async def upload(name: str, file: Annotated[UploadFile, File()]) -> int:
    """Put a file into the store."""
    data = await file.read()
    await asyncio.to_thread(store.put_object, "bucket", name, io.BytesIO(data), len(data))
    return len(data)

"""The two commands of MinIO's client that the page uses, for `test_install_page`: `alias set` and `cp`."""

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio

REMEMBERED = Path("mc.json")


def main(words: list[str]) -> None:
    match words:
        case ["alias", "set", name, url, access_key, secret_key]:
            REMEMBERED.write_text(json.dumps({name: [url, access_key, secret_key]}))
        case ["cp", file, target]:
            name, bucket, key = target.split("/", 2)
            url, access_key, secret_key = json.loads(REMEMBERED.read_text())[name]
            parts = urlsplit(url)
            client = Minio(
                endpoint=parts.netloc, access_key=access_key, secret_key=secret_key, secure=parts.scheme == "https"
            )
            client.fput_object(bucket_name=bucket, object_name=key, file_path=file)
        case _:
            raise SystemExit(f"mc: {words} is not among what the tests know")


main(sys.argv[1:])

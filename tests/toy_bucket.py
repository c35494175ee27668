"""A bucket in memory: objects by name, each written whole, with a generation that counts its writes.

It has two doors to the same objects, those that the package goes through: the HTTP of Google Cloud Storage, which
TensorStore speaks (arrays of checkpoints, leases), and an fsspec file system, which epath opens for `gs://`. There are
no folders, nothing is appended to and nothing is renamed.
"""

import io
import itertools
import json
import threading
import urllib.parse
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import fsspec
from etils.epath import backend
from fsspec import AbstractFileSystem
from orbax.checkpoint._src.path import gcs_utils


class Bucket:
    """Objects of any bucket, by `bucket/name`."""

    def __init__(self):
        self.lock = threading.Lock()
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.counter = itertools.count(1)
        self.full = False

    def put(self, name: str, content: bytes, generation: str | None = None) -> int | None:
        """The new generation, or None if the object has another one than was asked for."""
        with self.lock:
            if self.full:
                raise OSError(28, "No space left on device")
            if generation is not None and self.objects.get(name, (b"", 0))[1] != int(generation):
                return None
            number = next(self.counter)
            self.objects[name] = (content, number)
            return number

    def remove(self, name: str) -> bool:
        with self.lock:
            return self.objects.pop(name, None) is not None

    def under(self, prefix: str) -> list[str]:
        with self.lock:
            return sorted(name for name in self.objects if name.startswith(prefix))


class BucketFiles(AbstractFileSystem):
    """What gcsfs is to a real bucket."""

    protocol = "gcs"
    cachable = False
    bucket = Bucket()

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix("gs://").removeprefix("gcs://").strip("/")

    def info(self, path, **options):
        path = self._strip_protocol(path)
        if path in self.bucket.objects:
            return {"name": path, "type": "file", "size": len(self.bucket.objects[path][0])}
        if "/" not in path or self.bucket.under(path + "/"):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    def ls(self, path, detail=True, **options):
        path = self._strip_protocol(path)
        if self.info(path)["type"] == "file":
            found = [path]
        else:
            start = len(path) + 1
            found = sorted({path + "/" + name[start:].split("/")[0] for name in self.bucket.under(path + "/")})
        return [self.info(name) for name in found] if detail else found

    def _open(self, path, mode="rb", **options):
        path = self._strip_protocol(path)
        if "r" in mode:
            if path not in self.bucket.objects:
                raise FileNotFoundError(path)
            return io.BytesIO(self.bucket.objects[path][0])
        if "w" not in mode:
            raise ValueError(f"a bucket has no mode {mode}")
        return Upload(self.bucket, path)

    def mkdir(self, path, create_parents=True, **options):
        pass

    def makedirs(self, path, exist_ok=False):
        pass

    def rmdir(self, path):
        pass

    def _rm(self, path):
        if not self.bucket.remove(self._strip_protocol(path)):
            raise FileNotFoundError(path)

    def rm(self, path, recursive=False, maxdepth=None):
        name = self._strip_protocol(path)
        self.info(name)
        for found in self.bucket.under(name + "/") if recursive else []:
            self.bucket.remove(found)
        self.bucket.remove(name)

    def cp_file(self, path1, path2, **options):
        raise AssertionError("the package copies by reading and writing")


class Upload(io.BytesIO):
    """An object that is written when it is closed."""

    def __init__(self, bucket, name):
        super().__init__()
        self.bucket, self.name = bucket, name

    def close(self):
        if not self.closed:
            content = self.getvalue()
            super().close()
            self.bucket.put(self.name, content)


class Door(BaseHTTPRequestHandler):
    """The part of the JSON API that TensorStore calls."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *arguments):
        pass

    def answer(self, status: int, content: bytes = b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def asked(self) -> tuple[list[str], dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        return url.path.strip("/").split("/"), dict(urllib.parse.parse_qsl(url.query))

    def do_POST(self):
        content = self.rfile.read(int(self.headers["content-length"]))
        parts, query = self.asked()
        name = f"{parts[parts.index('b') + 1]}/{query['name']}"
        try:
            generation = self.bucket.put(name, content, query.get("ifGenerationMatch"))
        except OSError as error:
            return self.answer(403, str(error).encode())
        return self.answer(412) if generation is None else self.answer(200, self.described(name, generation))

    def do_GET(self):
        parts, query = self.asked()
        bucket = parts[parts.index("b") + 1]
        if parts[-1] == "o":
            prefix = bucket + "/"
            names = [name.removeprefix(prefix) for name in self.bucket.under(prefix)]
            low, high = query.get("startOffset", ""), query.get("endOffset")
            inside = [name for name in names if name >= low and (high is None or name < high)]
            return self.answer(200, json.dumps({"items": [{"name": name, "size": "0"} for name in inside]}).encode())
        found = self.bucket.objects.get(f"{bucket}/{urllib.parse.unquote(parts[-1])}")
        if found is None:
            return self.answer(404)
        content, generation = found
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.answer(304)
        status = 200
        if asked := self.headers.get("range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start = int(first) if first else len(content) - int(last)
            end = min(int(last) + 1, len(content)) if first and last else len(content)
            kept = f"bytes {start}-{end - 1}/{len(content)}"
            return self.answer(206, content[start:end], x_goog_generation=generation, content_range=kept)
        return self.answer(status, content, x_goog_generation=generation)

    def do_DELETE(self):
        parts, query = self.asked()
        name = f"{parts[parts.index('b') + 1]}/{urllib.parse.unquote(parts[-1])}"
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and self.bucket.objects.get(name, (b"", 0))[1] != int(wanted):
            return self.answer(412)
        return self.answer(204 if self.bucket.remove(name) else 404)

    def described(self, name: str, generation: int) -> bytes:
        return json.dumps({"name": name, "generation": str(generation), "size": "0"}).encode()


@contextmanager
def open_bucket(monkeypatch):
    """A bucket that `gs://` leads to, in this process."""
    bucket = Bucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneDoor", (Door,), {"bucket": bucket}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
    monkeypatch.setattr(BucketFiles, "bucket", bucket)
    fsspec.register_implementation("gcs", BucketFiles, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    # Orbax asks Google's own library for the kind of a bucket before it removes from it.
    monkeypatch.setattr(gcs_utils, "get_bucket", lambda name: SimpleNamespace(hierarchical_namespace_enabled=False))
    try:
        yield bucket
    finally:
        backend.fsspec_backend._get_filesystem.cache_clear()
        server.shutdown()
        server.server_close()

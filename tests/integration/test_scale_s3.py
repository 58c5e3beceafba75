"""Buckets of a server that speaks S3, and web servers: whole objects, reruns, refusals."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as pillow
from upscale_cli import Shell, make_image

from realesr_cli.batch import storage


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system of an S3 server with the buckets `in-b` and `out-b`."""
    servers = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "secretkeyid",
        "AWS_SECRET_ACCESS_KEY": "secretkey",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "_WAIT", 0.01)
    reset = urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem(use_listings_cache=False)
    for bucket in ("in-b", "out-b"):
        fs.mkdir(bucket)
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def fill(fs: Any, count: int) -> None:
    data = make_image("temporary.png").read_bytes()
    for index in range(count):
        fs.pipe_file(f"in-b/x/{index % 2}/{index}.png", data)


def whole(fs: Any, bucket: str) -> list[str]:
    """Names of the objects of a bucket, all of which are whole images of the expected size."""
    names = sorted(fs.find(bucket))
    for name in names:
        with pillow.open(io.BytesIO(fs.cat_file(name))) as image:
            image.load()
            assert image.size == (48, 32)
    return names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
class TestS3:
    def test_a_prefix_to_another_bucket_and_again(self, shell: Shell, s3: Any):
        fill(s3, 5)
        outcome = shell("s3://in-b/x", "-r", "-o", "s3://out-b/y/", "--json")
        assert (outcome.code, outcome.summary["done"]) == (0, 5)
        assert whole(s3, "out-b")[0] == "out-b/y/0/0_x4.png"
        mark = json.loads(s3.metadata("out-b/y/0/0_x4.png")["realesr"])
        assert (mark["source"], mark["size"]) == ("0/0.png", [32, 48])
        again = shell("s3://in-b/x", "-r", "-o", "s3://out-b/y/", "--json")
        assert (again.code, again.summary["skipped"]) == (0, 5)
        s3.rm("out-b/y/1/1_x4.png")
        third = shell("s3://in-b/x", "-r", "-o", "s3://out-b/y/", "--json")
        assert (third.summary["done"], third.summary["skipped"]) == (1, 4)
        other = shell("s3://in-b/x", "-r", "-o", "s3://out-b/y/", "--strength", "0.5")
        assert other.code == 1
        assert "strength" in other.err

    def test_listing_goes_on_from_page_to_page(
        self, shell: Shell, s3: Any, monkeypatch: pytest.MonkeyPatch
    ):
        fill(s3, 12)
        monkeypatch.setattr(storage, "_PAGE", 5)
        found = storage.list_objects("s3://in-b/x", recursive=True)
        assert len({item.relative for item in found}) == 12
        assert len(list(storage.list_objects("s3://in-b/x/1/", recursive=False))) == 6
        assert list(storage.list_objects("s3://in-b/x", recursive=False)) == []

    def test_an_image_that_fails_leaves_no_object(self, shell: Shell, s3: Any):
        fill(s3, 2)
        s3.pipe_file("in-b/x/0/bad.png", b"no image")
        outcome = shell("s3://in-b/x", "-r", "-o", "s3://out-b/")
        assert outcome.code == 1
        assert "s3://in-b/x/0/bad.png" in outcome.err
        assert len(whole(s3, "out-b")) == 2

    @pytest.mark.parametrize(
        ("source", "target", "fact"),
        [
            ("s3://in-b/none.png", "out/", "s3://in-b/none.png: no such object"),
            ("s3://no-bucket/", "out/", "s3://no-bucket/: no such bucket"),
            ("temporary.png", "s3://no-bucket/", "s3://no-bucket: no such"),
        ],
    )
    def test_what_is_missing_is_one_line(
        self, shell: Shell, s3: Any, source: str, target: str, fact: str
    ):
        fill(s3, 1)
        outcome = shell(source, "-o", target)
        assert outcome.code == 2
        assert fact in outcome.err
        assert outcome.err.count("\n") == 1

    def test_a_bucket_without_permission_is_one_line(
        self, shell: Shell, s3: Any, monkeypatch: pytest.MonkeyPatch
    ):
        make_image("a.png")
        with serve(_Refusing) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            type(s3).clear_instance_cache()
            reading = shell("s3://in-b/", "-o", "out/")
            writing = shell("a.png", "-o", "s3://out-b/")
        assert (reading.code, writing.code) == (2, 1)
        for outcome in (reading, writing):
            assert "access denied" in outcome.err
            assert outcome.err.count("\n") == 1
            assert "secretkey" not in outcome.err

    def test_a_writer_killed_during_a_put(self, s3: Any, tiny: Path, tmp_path: Path):
        os.chdir(tmp_path)
        fill(s3, 12)
        command = [sys.executable, "-m", "realesr_cli", "upscale", "-m", str(tiny), "s3://in-b/x"]
        command += ["-r", "-o", "s3://out-b/", "--json", "--device", "cpu", "--threads", "1"]
        victim: list[subprocess.Popen[bytes]] = []
        with _proxy(os.environ["AWS_ENDPOINT_URL"], lambda: victim[0].kill()) as url:
            victim.append(subprocess.Popen(command, env={**os.environ, "AWS_ENDPOINT_URL": url}))
            assert victim[0].wait(120) == -signal.SIGKILL
        before = {name: s3.info(name) for name in whole(s3, "out-b")}
        assert 0 < len(before) < 12
        again = subprocess.run(command, capture_output=True, check=True, timeout=120)
        summary = json.loads(again.stdout.splitlines()[-1])["summary"]
        assert (summary["done"], summary["skipped"]) == (12 - len(before), len(before))
        assert len(whole(s3, "out-b")) == 12
        assert all(s3.info(name) == info for name, info in before.items())


class _Refusing(http.server.BaseHTTPRequestHandler):
    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = refuse

    def log_message(self, *_: object) -> None:
        pass


class serve:
    """An HTTP server with this handler, as a context manager of its URL."""

    def __init__(self, handler: Any) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class _proxy:
    """Passes on everything, but of the fifth PUT only a part, after which it calls `kill`."""

    def __init__(self, target: str, kill: Any) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self.address, self.kill, self.puts = (host, int(port)), kill, 0
        self.listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self.accept, daemon=True).start()
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.address)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                self.puts += data.startswith(b"PUT ")
                if self.puts == 5:
                    target.sendall(data[: len(data) // 2])
                    self.kill()
                    self.puts += 1
                    return
                target.sendall(data)
        except OSError:
            pass
        finally:
            source.close()
            target.close()


@pytest.mark.filterwarnings("ignore")
def test_a_web_server_is_read(shell: Shell, tmp_path: Path):
    pytest.importorskip("aiohttp")
    make_image("site/a.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with serve(functools.partial(Quiet, directory=str(tmp_path / "site"))) as url:
        outcome = shell(f"{url}/a.png?signature=secret", "-o", "out.png", "--json")
        assert outcome.code == 0
        assert outcome.images[0]["input"] == f"{url}/a.png"
        missing = shell(f"{url}/none.png?signature=secret", "-o", "none.png")
    with serve(_Refusing) as refusing:
        refused = shell(f"{refusing}/a.png", "-o", "refused.png")
    assert (missing.code, refused.code) == (1, 1)
    assert f"{url}/none.png: no such object" in missing.err
    assert "access denied" in refused.err
    assert "secret" not in outcome.err + missing.err

"""A Hub on this machine's loopback, for the real ``huggingface_hub`` client: in memory, with faults on demand and a log."""

import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from hub_routes import Answer, Hub, Request
from hub_storage import Blob, Commit, Refusal, Repo, Storage


@dataclass
class Fault:
    """
    What is done to answers.

    :param pattern: searched in ``METHOD /path``
    :param times: to how many answers; None for all
    :param status: answered instead, without doing anything
    :param headers: of that answer
    :param delay: seconds before the answer
    :param keep: bytes of the body after which the connection is cut; its announced length stays
    :param edit: what the body of a ``GET`` becomes; should keep the length
    """

    pattern: str
    times: int | None = None
    status: int | None = None
    headers: Mapping[str, str] | None = None
    delay: float = 0.0
    keep: int | None = None
    edit: Callable[[bytes], bytes] | None = None


class _Listener(ThreadingHTTPServer):
    allow_reuse_port = True  # another socket of this process keeps the port while no server listens
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, hub: "HubServer") -> None:
        self.hub = hub
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away, as in the tests of timeouts, are no news."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """The log is :attr:`HubServer.log`."""

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self._body())
        answer, keep = self.server.hub.serve(request)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:keep])
            if keep is not None:
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve


class HubServer:
    """
    A Hub that can be started, stopped and damaged; also a context manager.

    :param port: to listen at; 0 takes a free one
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.storage = Storage()
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._listener: _Listener | None = None
        self._stopping = threading.Event()

    @property
    def endpoint(self) -> str:
        """For ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen again, with what is stored."""
        self._stopping.clear()
        self._listener = _Listener(self.port, self)
        self.port = self._listener.server_port
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on and cut those that are open."""
        if self._listener is None:
            return
        self._stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        for connection in list(self._listener.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # its client was faster
                continue
        self._listener = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def inject(self, pattern: str, **fault: object) -> None:
        """Add a :class:`Fault`."""
        self.faults.append(Fault(pattern, **fault))  # type: ignore[arg-type]

    def serve(self, request: Request) -> tuple[Answer, int | None]:
        """:return: the answer, and how much of its body is sent (None for all)"""
        with self._lock:
            self.log.append(request)
            faults = [fault for fault in self.faults if re.search(fault.pattern, f"{request.method} {request.path}")]
            faults = [fault for fault in faults if fault.times != 0]
            for fault in faults:
                fault.times = None if fault.times is None else fault.times - 1
        self._stopping.wait(sum(fault.delay for fault in faults))
        with self._lock:
            refused = next((fault for fault in faults if fault.status is not None), None)
            if refused is not None:
                answer = Answer.of({"error": "injected"}, refused.status or 0, **(refused.headers or {}))
            else:
                answer = Hub(self.storage, self.endpoint, f"http://localhost:{self.port}").answer(request)
            for fault in faults:
                if fault.edit is not None and request.method == "GET":
                    answer.body = fault.edit(answer.body)
            request.status = answer.status
        return answer, min((fault.keep for fault in faults if fault.keep is not None), default=None)

    def requests(self, pattern: str) -> list[Request]:
        """Those of the log whose ``METHOD /path`` the pattern is found in."""
        return [request for request in self.log if re.search(pattern, f"{request.method} {request.path}")]

    def downloaded(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        found = (re.fullmatch(r"GET .*/(?:resolve/[^/]+|cdn/[0-9a-f]{64})/(.+)", f"GET {r.path}") for r in self.log)
        asked = zip(self.log, found, strict=True)
        return [match[1] for request, match in asked if match and request.method == "GET" and request.status in (200, 206)]

    def repo(self, id: str, type: str = "model") -> Repo:
        """:raises Refusal: if it is not there"""
        if (type, id) not in self.storage.repos:
            raise Refusal(404, f"Repository not found: {id}")
        return self.storage.repos[type, id]

    def put(self, id: str, files: Mapping[str, bytes | None], type: str = "model", title: str = "edited") -> Commit:
        """
        Commit behind the client's back; the repository is made where it is missing.

        :param files: contents by path; None deletes
        """
        repo = self.storage.repos.get((type, id)) or self.storage.create(type, id, private=False)
        add = {}
        for path, content in files.items():
            if content is not None:
                blob = Blob(content, repo.upload_mode(path, len(content), content[:512]) == "lfs")
                if blob.lfs:
                    self.storage.large_files[blob.sha256] = content
                add[path] = blob
        return repo.commit(title, add, [path for path, content in files.items() if content is None])

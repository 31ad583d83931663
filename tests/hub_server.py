"""A stand-in for Hugging Face's hub, with the parts of its protocol that a download uses.

HEAD requests return metadata. Small files are sent directly; large files are redirected to another
address and sent in ranges if the client asks for a range. The server can simulate every refusal of
the real hub.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
import urllib.parse
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = (".bin", ".safetensors", ".h5")
_REFUSALS = {
    401: "RepoNotFound",
    403: "GatedRepo",
    404: "RepoNotFound",
}


@dataclasses.dataclass
class Hub:
    """The files and the behaviour of the server."""

    root: Path
    """Folder with ``USER/MODEL/FILE``."""
    refuse: int = 0
    """Status of every answer; 0: no refusal."""
    cut_after: int | None = None
    """Number of bytes of a large file after which the connection is cut, once."""
    uploads: dict = dataclasses.field(default_factory=dict)
    """Contents of uploaded files, by ``USER/MODEL/FILE``."""
    requests: list = dataclasses.field(default_factory=list)
    """``(method, path)`` of every request."""
    address: str = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, send_body):
        hub, path = self.hub, urllib.parse.unquote(self.path).partition("?")[0]
        hub.requests.append((self.command, path))
        if hub.refuse:
            self._send(hub.refuse, b"refused", {"X-Error-Code": _REFUSALS.get(hub.refuse, "")})
            return
        found = re.fullmatch(r"(?:/cdn)?/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        if not found or not (hub.root / found[1]).is_dir():
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        file = hub.root / found[1] / found[2]
        if not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if file.suffix in _LARGE and not path.startswith("/cdn/"):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(content).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(content))
            headers["Location"] = f"{hub.address}/cdn{path}"
            self._send(302, b"", headers)
            return
        self._send_content(content, headers, send_body)

    def _send_content(self, content, headers, send_body):
        status, start = 200, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if send_body and self.hub.cut_after is not None and self.path.startswith("/cdn/"):
            sent, self.hub.cut_after = body[: self.hub.cut_after], None
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = True
            return
        self._send(status, body, headers, send_body)

    def _send(self, status, body, headers=None, send_body=True):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if send_body and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass

    # === Uploads: making a repository, what to do with each file, the commit ===

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(("POST", self.path))
        if self.hub.refuse:
            self._send(self.hub.refuse, b"refused", {"X-Error-Code": "GatedRepo"})
        elif self.path == "/api/repos/create":
            fields = json.loads(body)
            name = "/".join(filter(None, [fields.get("organization"), fields["name"]]))
            (self.hub.root / name).mkdir(parents=True, exist_ok=True)
            self._send_json({"url": f"{self.hub.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._send_json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._send_json({"files": files})
        elif "/commit/" in self.path:
            name = re.match(r"/api/models/([^/]+/[^/]+)/commit/", self.path)[1]
            self._commit(name, body)
            url = f"{self.hub.address}/{name}/commit/{COMMIT}"
            self._send_json({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
        else:
            self._send(404, b"{}")

    def _commit(self, name, body):
        for line in body.splitlines():
            item = json.loads(line)
            if item["key"] == "file":
                content = base64.b64decode(item["value"]["content"])
                self.hub.uploads[f"{name}/{item['value']['path']}"] = content

    def _send_json(self, content):
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextlib.contextmanager
def serving(root):
    """Serves the models in ``root`` on a free port; yields the ``Hub``."""
    hub = Hub(Path(root))
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

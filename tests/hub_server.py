"""A small Hugging Face Hub on 127.0.0.1: one repository of plain files at one commit, to download from and push to."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "1" * 40
REVISIONS = ("main", "v1", COMMIT)
Files = dict[str, bytes]


class Handler(BaseHTTPRequestHandler):
    """Serves the repositories in `server.repositories`, by OWNER/NAME."""

    server: "Hub"

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, content: Any, status: int = 200, **headers: str) -> None:
        self.answer(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append(path)
        parts = path.removeprefix("api/models/").split("/")
        name, kind, revision, *rest = "/".join(parts[:2]), *[*parts[2:], "", ""][:2], *parts[4:]
        files = self.server.repositories.get(name)
        if files is None:
            self.json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif revision not in REVISIONS:
            self.json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        elif kind == "revision":
            self.json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})
        elif kind == "tree":
            self.json([{"type": "file", "path": file, "size": len(content), "oid": digest(content)}
                       for file, content in files.items()])  # fmt: skip
        elif "/".join(rest) in files:
            content = files["/".join(rest)]
            self.answer(content, ETag=f'"{digest(content)}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")
        else:
            self.json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = self.path.split("?")[0].strip("/").split("/")
        name = "/".join(parts[2:4])
        if self.headers.get("Authorization") != "Bearer secret":
            self.json({"error": "Invalid credentials"}, 401)
        elif parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            self.json({"url": f"{self.server.address}/{name}", "name": name, "id": name})
        elif "preupload" in parts:
            asked = json.loads(body)["files"]
            self.json({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                 for file in asked]})  # fmt: skip
        elif "commit" in parts:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[name][line["value"]["path"]] = content
            self.json({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.address}/{name}/commit/1"})
        else:  # validation of a card's head
            self.json({"errors": [], "warnings": []})


class Hub(ThreadingHTTPServer):
    """The server; `asked` lists the requested paths."""

    def __init__(self, repositories: dict[str, Files]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.asked = repositories, []
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub(repositories: dict[str, Files]) -> Iterator[Hub]:
    """A server that runs within the context."""
    with Hub(repositories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()

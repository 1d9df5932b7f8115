"""`basicsr web` in a process of its own, whose connections to other machines are recorded; it often sweeps."""

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

CODE = """
import sys
own = ("127.0.0.1", "::1", "localhost")
def record(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in own:
        print(event, arguments[1], file=log, flush=True)
    if event == "socket.getaddrinfo" and arguments[0] not in (*own, None):
        print(event, arguments[0], file=log, flush=True)
log = open(sys.argv[1], "a")
sys.addaudithook(record)
from bidiffsr_arch.cli import main
from bidiffsr_arch.web import server
server.SWEEP = 0.1
sys.exit(main(sys.argv[2:]))
"""


class WebServer:
    """A running server.

    Attributes:
        temporary: the folder that it may write to.
        place: its current directory, empty.
        port: its port on 127.0.0.1.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.temporary, self.place, self.log = folder / "temporary", folder / "place", folder / "connections"
        self.temporary.mkdir(parents=True)
        self.place.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(self.log), "web", "--port", "0", *arguments],
            cwd=self.place,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=(folder / "errors").open("w"),
            text=True,
        )
        line = self.process.stdout.readline()
        found = re.match(r"serving (http://127\.0\.0\.1:(\d+)) ", line)
        assert found, line + (folder / "errors").read_text()
        self.url, self.port = found[1], int(found[2])

    def ask(
        self, method: str, path: str, body: bytes | None = None, cookie: str | None = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        """Send one request: status, text and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        cookies = {"Cookie": f"bidiffsr_visitor={cookie}"} if cookie else {}
        connection.request(method, path, body, cookies | headers)
        answer = connection.getresponse()
        content = answer.read().decode(errors="replace"), dict(answer.getheaders())
        connection.close()
        return answer.status, *content

    def upload(self, cookie: str, name: str, content: bytes) -> tuple[int, str]:
        """Send a file as the page does: status and text of the answer."""
        disposition = f'form-data; name="files"; filename="{name}"'
        body = f"--xyz\r\nContent-Disposition: {disposition}\r\nContent-Type: image/png\r\n\r\n".encode()
        body += content + b"\r\n--xyz--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=xyz"}
        return self.ask("POST", "/gradio_api/upload", body, cookie, **kind)[:2]

    def processor_seconds(self) -> float:
        """Processor time of the server so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def files(self) -> set[Path]:
        """All files that it has written."""
        return {path for path in self.temporary.rglob("*") if path.is_file()}

    def stop(self) -> int:
        """End it as a service manager does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def function_index(config: dict[str, Any], name: str) -> int:
    """The number by which the page calls a handler."""
    return next(entry["id"] for entry in config["dependencies"] if entry["api_name"] == name)

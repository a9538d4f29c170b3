"""The page on the loopback interface, with the server of Python's standard library.

    GET  /            the page            GET  /page.css, /page.js    its style and its program
    GET  /state       the pair that is asked now, the progress, and the token
    GET  /plan        how many labels are still needed
    POST /answer      {"token", "trial", "verdict", "seconds"}; the answer is on the disk before the reply
    POST /undo        {"token"}

Only this computer reaches the server, and other pages in the same browser do not: the Host header must name the
loopback address, which a foreign name that was pointed here does not (DNS rebinding); a POST must come from the page's
own origin and must carry the token, which only a page of this origin can read; and the page itself may load and send
nothing elsewhere (Content-Security-Policy).
"""

import contextlib
import hmac
import http
import json
import math
import pathlib
import secrets
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from experiments.preferences import wording
from experiments.preferences.labels import VERDICTS
from experiments.preferences.session import AlreadyAnswered, Session
from pgjax.preferences import RecordError

LOOPBACK = "127.0.0.1"
LARGEST_POST = 4096  # bytes; an answer has about 150
TIMEOUT_S = 30.0  # seconds that a client may take for a request
LONGEST_LOOK_S = 86_400.0
FILES = {"/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript")}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Status = http.HTTPStatus


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: Status, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Server(ThreadingHTTPServer):
    """The server of one session; port 0 takes any free port.

    Raises:
        OSError: the port is not free.
    """

    daemon_threads = True
    # A second server on a port that is in use would take over its requests on some systems.
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")

    def __init__(self, session: Session, question: str = wording.QUESTION, port: int = 0):
        self.session, self.question, self.token = session, question, secrets.token_urlsafe(32)
        super().__init__((LOOPBACK, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        if self.server_port == 80:
            self.hosts |= {LOOPBACK, "localhost"}

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes its connection is no error of the server."""

    @contextlib.contextmanager
    def running(self):
        """Serve in a thread within this block."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    disable_nagle_algorithm = True
    timeout = TIMEOUT_S

    def version_string(self) -> str:
        return "pgjax"

    def log_message(self, format: str, *arguments: Any) -> None:
        """The terminal is kept for what the person needs to read."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, such as a method that it does not know."""
        self.close_connection = True
        self._send_json(Status(code), {"error": message or Status(code).phrase})

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, handle: Callable[[], None]) -> None:
        try:
            if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
                allowed = ", ".join(sorted(self.server.hosts))
                raise Refused(Status.FORBIDDEN, f"The Host header must be one of {allowed}.")
            handle()
        except Refused as error:
            # What is left of a refused request would be read as the next one.
            self.close_connection = True
            self._send_json(error.status, {"error": error.reason})
        except (ConnectionError, TimeoutError):  # of the browser
            raise
        except (OSError, RecordError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self._send_json(Status.INTERNAL_SERVER_ERROR, {"error": f"The file of labels is unchanged: {reason}."})

    def _get(self) -> None:
        if self.path == "/":
            self._send_file("page.html", "text/html")
        elif self.path in FILES:
            self._send_file(*FILES[self.path])
        elif self.path == "/state":
            self._send_json(Status.OK, self._state())
        elif self.path == "/plan":
            session = self.server.session
            text = wording.plan(session.plan(), session.progress().choices, session.target)
            self._send_json(Status.OK, {"text": text})
        else:
            raise Refused(Status.NOT_FOUND, "There is no such page.")

    def _post(self) -> None:
        sent = self._body()
        session = self.server.session
        if self.path == "/undo":
            session.undo()
        elif self.path == "/answer":
            self._save(session, sent)
        else:
            raise Refused(Status.NOT_FOUND, "There is no such page.")
        self._send_json(Status.OK, self._state())

    def _save(self, session: Session, sent: dict[str, Any]) -> None:
        name, verdict, seconds = (sent.get(key) for key in ("trial", "verdict", "seconds"))
        if not isinstance(name, str):
            raise Refused(Status.BAD_REQUEST, "trial must be the name of a pair.")
        if verdict not in (*VERDICTS, "skip"):
            raise Refused(Status.BAD_REQUEST, f"verdict must be one of {', '.join(VERDICTS)}, skip.")
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not (number and math.isfinite(seconds) and 0 <= seconds <= LONGEST_LOOK_S):
            raise Refused(Status.BAD_REQUEST, f"seconds must be a number between 0 and {LONGEST_LOOK_S:g}.")
        try:
            if verdict == "skip":
                session.skip(name)
            else:
                session.answer(name, verdict, float(seconds))
        except KeyError:
            raise Refused(Status.NOT_FOUND, "There is no such pair.") from None
        except AlreadyAnswered as error:
            raise Refused(Status.CONFLICT, f"{error}.".capitalize()) from None

    def _body(self) -> dict[str, Any]:
        """The JSON object of a POST that comes from the page."""
        origin = self.headers.get_all("Origin", [])
        if origin != [f"http://{self.headers['Host']}"]:
            raise Refused(Status.FORBIDDEN, "The Origin header must be that of the page.")
        if self.headers.get_content_type() != "application/json":
            raise Refused(Status.UNSUPPORTED_MEDIA_TYPE, "The Content-Type must be application/json.")
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise Refused(Status.LENGTH_REQUIRED, "The request must state its Content-Length.")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(Status.BAD_REQUEST, "The Content-Length must be one number.")
        # Digits are counted first, because Python refuses to read numbers of thousands of digits.
        if len(lengths[0]) > 10 or int(lengths[0]) > LARGEST_POST:
            raise Refused(Status.REQUEST_ENTITY_TOO_LARGE, f"The request must have at most {LARGEST_POST} bytes.")
        content = self.rfile.read(int(lengths[0]))
        if len(content) < int(lengths[0]):
            raise Refused(Status.BAD_REQUEST, "The request ended early.")
        try:
            sent = json.loads(content)
        except (ValueError, RecursionError):
            raise Refused(Status.BAD_REQUEST, "The request must be JSON.") from None
        if not isinstance(sent, dict):
            raise Refused(Status.BAD_REQUEST, "The request must be a JSON object.")
        token = sent.get("token")
        if not (
            isinstance(token, str) and hmac.compare_digest(token.encode(errors="replace"), self.server.token.encode())
        ):
            raise Refused(Status.FORBIDDEN, "The token is wrong: the server was started again. Load the page anew.")
        return sent

    def _state(self) -> dict[str, Any]:
        """What the page needs. It shows no sign of where an answer comes from or whether the pair was shown before."""
        session = self.server.session
        trial, progress = session.current(), session.progress()
        shown = None
        if trial is not None:
            answers = [wording.visible(answer) for answer in trial.shown]
            shown = {"name": trial.name, "prompt": wording.visible(trial.pair.prompt), "answers": answers}
        return {
            "token": self.server.token,
            "question": self.server.question,
            "trial": shown,
            "done": progress.done + progress.skipped,
            "total": progress.total,
            "progress": wording.progress(progress),
            "can_undo": session.can_undo,
            "file": str(session.path),
        }

    def _send_file(self, name: str, kind: str) -> None:
        self._send(Status.OK, pathlib.Path(__file__).with_name(name).read_bytes(), kind)

    def _send_json(self, status: Status, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: Status, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

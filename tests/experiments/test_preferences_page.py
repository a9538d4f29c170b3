"""The page's server without a browser: what it saves, what it refuses, and that a kill loses no answer."""

import http.client
import json
import pathlib
import signal
import subprocess
import sys

import pytest

from experiments import preferences
from experiments.harness.directories import UsageError
from experiments.preferences import pairs, trials
from experiments.preferences.server import LARGEST_POST, Server
from experiments.preferences.session import Session
from pgjax.preferences import records

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAIRS = [pairs.Pair(prompt=f"{number} <b>&amp;", answers=(f"good {number}", f"bad {number}")) for number in range(6)]


class Page:
    """What the program of the page does, with the headers that a browser sends."""

    def __init__(self, port: int):
        self.port = port
        self.token = self.state["token"]

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, {} if headers is None else headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read().decode()
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    @property
    def state(self):
        return json.loads(self.get("/state")[2])

    def post(self, path, body, **headers):
        headers = {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        content = body if isinstance(body, bytes) else json.dumps({"token": self.token} | body).encode()
        status, _, text = self.request("POST", path, content, {k: v for k, v in headers.items() if v is not None})
        return status, json.loads(text)

    def answer(self, verdict, seconds=1.5, trial=None):
        trial = trial or self.state["trial"]["name"]
        return self.post("/answer", {"trial": trial, "verdict": verdict, "seconds": seconds})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def start(path, repeat_share=0.5, annotator="ada"):
    return Session(trials.order(PAIRS, 0, repeat_share), path, annotator)


@pytest.fixture
def page(path):
    with start(path) as session, Server(session).running() as server:
        yield Page(server.server_port)


def test_each_answer_is_in_the_file_before_it_is_acknowledged(page, path):
    seen = []
    for verdict in ("first", "second", "equal", "both_bad"):
        shown = page.state["trial"]
        status, state = page.answer(verdict, seconds=2.25)
        saved = records.read(path)[-1]
        seen.append(shown["name"])
        assert status == 200 and state["done"] == len(seen) == len(records.read(path))
        first, second = shown["answers"]
        better, worse = (second, first) if verdict == "second" else (first, second)
        assert (saved.prompt, saved.chosen, saved.rejected) == (shown["prompt"], better, worse)
        assert saved.tie == (verdict if verdict in ("equal", "both_bad") else None)
        assert (saved.annotator, saved.time_s) == ("ada", 2.25)
        assert saved.extra["shown_first"] == ("rejected" if verdict == "second" else "chosen")
    assert len(set(seen)) == 4


def test_the_last_pair_ends_the_work(page, path):
    total = page.state["total"]
    assert total == 9  # six pairs and a repeat for each block of two
    for _ in range(total):
        page.answer("first")
    state = page.state
    assert state["trial"] is None and state["done"] == total == len(records.read(path))
    assert sum(record.extra["repeat"] for record in records.read(path)) == 3
    assert page.answer("first", trial="x-0")[0] == 404


def test_the_same_answer_twice_is_one_and_another_one_is_refused(page, path):
    name = page.state["trial"]["name"]
    assert page.answer("first", trial=name)[0] == 200
    assert page.answer("first", trial=name)[0] == 200
    assert page.answer("second", trial=name)[0] == 409 and page.answer("skip", trial=name)[0] == 409
    assert len(records.read(path)) == 1
    later = f"{next(p.name for p in reversed(PAIRS) if not name.startswith(p.name))}-1"
    assert page.answer("first", trial=later)[0] in (404, 409) and len(records.read(path)) == 1


def test_undo_goes_back_over_answers_and_skipped_pairs(page, path):
    assert not page.state["can_undo"]
    names = []
    for verdict in ("first", "skip", "second"):
        names.append(page.state["trial"]["name"])
        page.answer(verdict)
    assert len(records.read(path)) == 2 and page.state["progress"] == "2 of 9 answered, 1 skipped"
    for name in reversed(names):
        status, state = page.post("/undo", {})
        assert status == 200 and state["trial"]["name"] == name
    assert records.read(path) == [] and not page.state["can_undo"]
    assert page.post("/undo", {})[0] == 200


def test_a_skipped_pair_is_not_asked_again(path):
    with start(path) as session:
        asked = []
        while (trial := session.current()) is not None:
            asked.append(trial.name)
            session.skip(trial.name)
        assert len(asked) == len(PAIRS) and all(name.endswith("-0") for name in asked)
    with start(path) as session:
        assert session.current() is None and session.progress().skipped == 6


def test_nobody_else_is_answered(page):
    for host in (f"evil.example:{page.port}", "127.0.0.1", f"127.0.0.1:{page.port + 1}", ""):
        for method, target in (("GET", "/"), ("GET", "/state"), ("POST", "/answer")):
            status, _, text = page.request(method, target, b"{}" if method == "POST" else None, {"Host": host})
            assert status == 403 and "Host" in text and page.token not in text
    assert page.get("/state", Host=f"localhost:{page.port}")[0] == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": None}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": None}, 415),
        ({"Content_Length": "-1"}, 400),
        ({"Content_Length": "²"}, 400),
        ({"Content_Length": "9" * 5000}, 413),
        ({"Content_Length": str(LARGEST_POST + 1)}, 413),
        ({"Transfer_Encoding": "chunked", "Content_Length": None}, 411),
    ],
)
def test_a_post_from_elsewhere_or_of_another_form_is_refused(page, path, changes, status):
    body = json.dumps({"token": page.token, "trial": page.state["trial"]["name"], "verdict": "first", "seconds": 1})
    changes = {
        name: value.encode("utf-8") if value and not value.isascii() else value for name, value in changes.items()
    }
    assert page.post("/answer", body.encode(), **changes)[0] == status
    assert not path.exists() and page.answer("first")[0] == 200


def test_malformed_posts_are_refused(page, path):
    trial = page.state["trial"]["name"]
    whole = {"trial": trial, "verdict": "first", "seconds": 1.0}
    assert page.post("/answer", whole | {"token": "guessed"})[0] == 403
    assert page.post("/answer", whole | {"token": None})[0] == 403
    assert page.post("/answer", whole | {"token": "\ud800"})[0] == 403
    for body in (b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b"[" * 4000, b'{"token": NaN'):
        assert page.post("/answer", body)[0] == 400
    for wrong in ({"trial": 3}, {"trial": None}, {"verdict": "best"}, {"verdict": ["first"]}, {"seconds": -1}):
        assert page.post("/answer", whole | wrong)[0] == 400
    for wrong in ({"seconds": float("nan")}, {"seconds": 1e9}, {"seconds": True}, {"seconds": "1"}):
        assert page.post("/answer", whole | wrong)[0] == 400
    assert page.post("/answer", whole | {"trial": "0" * 16 + "-0"})[0] == 404
    assert page.post("/elsewhere", whole)[0] == 404 and page.get("/../page.js")[0] == 404
    assert page.request("DELETE", "/")[0] == 501
    assert not path.exists() and page.answer("first")[0] == 200


def test_the_page_is_static_and_loads_nothing_from_elsewhere(page):
    for name in ("/", "/page.css", "/page.js", "/state", "/plan"):
        status, headers, text = page.get(name)
        assert status == 200 and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "://" not in text and "innerHTML" not in text and "Python" not in headers["Server"]
    assert "<b>" not in page.get("/")[2]  # texts of pairs come as JSON alone
    assert page.state["trial"]["prompt"].endswith("<b>&amp;")


def test_no_sign_tells_where_an_answer_comes_from(tmp_path):
    origin = {"policy": "secret-policy", "seed": 1, "step": 7, "logp": -3.5}
    pair = pairs.Pair(prompt="p", answers=("a", "b"), origins=(origin, origin | {"policy": "other"}))
    ordered = trials.order([pair], 0, 0.0)
    with Session(ordered, tmp_path / "l.jsonl", "ada") as session, Server(session).running() as server:
        page = Page(server.server_port)
        assert "secret" not in page.get("/state")[2]
        page.answer("first")
    (saved,) = records.read(tmp_path / "l.jsonl")
    assert (saved.seed, saved.step, saved.policy, saved.logp_chosen) == (1, 7, None, -3.5)
    assert {saved.extra["policy_chosen"], saved.extra["policy_rejected"]} == {"secret-policy", "other"}


def test_a_full_disk_is_told_and_nothing_counts_as_saved(page, path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    name = page.state["trial"]["name"]
    with monkeypatch.context() as patch:
        patch.setattr(records, "append", full)
        status, reply = page.answer("first")
    assert status == 500 and "No space left on device" in reply["error"]
    assert page.state["trial"]["name"] == name and page.state["done"] == 0 and not path.exists()


def test_a_new_session_goes_on_at_the_same_pair(path):
    with start(path) as session:
        for verdict in ("first", "equal"):
            session.answer(session.current().name, verdict, 1.0)
        session.skip(session.current().name)
        expected = session.current()
        with pytest.raises(UsageError, match="another collect is writing to this file"):
            start(path)
    with start(path) as session:
        assert session.current() == expected and session.progress().done == 2 and session.can_undo
        session.undo()
        assert session.progress().skipped == 0
    with start(path, annotator="grace") as session:
        assert session.progress().done == 0 and not session.can_undo and session.current().occurrence == 0
        session.answer(session.current().name, "first", 1.0)
        session.undo()
    assert [record.annotator for record in records.read(path)] == ["ada", "ada"]


def test_a_line_that_was_cut_short_is_set_aside(path):
    with start(path) as session:
        session.answer(session.current().name, "first", 1.0)
        expected = session.current()
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"prompt": "half a li')
    with start(path) as session:
        assert session.current() == expected and "cut short" in session.repaired[0]
        session.answer(expected.name, "second", 1.0)
    assert len(records.read(path)) == 2


def test_undo_keeps_what_another_program_added(path):
    with start(path) as session:
        session.answer(session.current().name, "first", 1.0)
        other = records.Preference(prompt="p", chosen="a", rejected="b", annotator="synthetic")
        records.append(path, other)
        session.undo()
    assert records.read(path) == [other]


def test_undo_leaves_labels_of_another_file_of_pairs(path):
    earlier = records.Preference(prompt="p", chosen="a", rejected="b", annotator="ada")
    records.append(path, earlier)
    with start(path) as session:
        assert not session.can_undo and session.undo() is None
        session.answer(session.current().name, "first", 1.0)
        assert session.can_undo and session.undo() is not None and not session.can_undo
    assert records.read(path) == [earlier]


def serve(tmp_path):
    """A server in a process of its own, and its page."""
    pairs.write(tmp_path / "pairs.jsonl", [{"prompt": pair.prompt, "answers": pair.answers} for pair in PAIRS])
    command = [sys.executable, "-m", "experiments.preferences", "collect", "--pairs", str(tmp_path / "pairs.jsonl")]
    command += ["--labels", str(tmp_path / "labels.jsonl")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert "http://127.0.0.1:" in line, (line, process.stderr.read())
    return process, Page(int(line.partition("127.0.0.1:")[2].partition("/")[0]))


def test_a_killed_process_loses_nothing_and_ctrl_c_ends_well(tmp_path):
    process, page = serve(tmp_path)
    try:
        page.answer("first")
        page.answer("skip")
        _, state = page.answer("second")
    finally:
        process.kill()
        process.communicate()
    process, page = serve(tmp_path)
    try:
        assert page.state.pop("token") != state.pop("token")
        assert page.state | {"token": None} == state | {"token": None}
        assert page.answer("first")[0] == 200
        process.send_signal(signal.SIGINT)
        shown, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0 and errors == ""
    assert "3 of 7 answered, 1 skipped; 3 labels of person in" in shown
    assert len(records.read(tmp_path / "labels.jsonl")) == 3


def test_a_port_in_use_is_refused(tmp_path, capsys, page):
    with pytest.raises(SystemExit) as left:
        preferences.main(["collect", "--labels", str(tmp_path / "b" / "l.jsonl"), "--port", str(page.port)])
    assert left.value.code == 2 and f"--port {page.port}: the port cannot be used" in capsys.readouterr().err

"""The rules by which a published number is judged, and the list of papers."""

import base64
import contextlib
import dataclasses
import html
import html.parser
import importlib
import json
import shutil
import subprocess
import sys
import time
import types

import pytest

from experiments import papers as all_papers
from experiments.harness import command_line, plots, reports, runner
from experiments.harness import targets as papers
from experiments.harness.targets import Above, Digits, Measured, Near, Target, Within
from experiments.papers import page, processes


@pytest.mark.parametrize(
    ("rule", "published", "ours", "verdict"),
    [
        (Digits(), "−11.657", Measured(-11.65685), "agrees"),
        (Digits(), "−11.6", Measured(-11.65685), "differs"),  # cut off, not rounded
        (Digits(), "20", Measured(20.4), "agrees"),
        (Digits(), "20", Measured(20.6), "differs"),
        (Digits(), "1.0", Measured(1.06), "differs"),
        (Within(3), "0.53", Measured(0.55, 0.006), "agrees"),
        (Within(3), "0.53", Measured(0.55, 0.004), "differs"),
        (Within(3, published_stderr=0.006), "0.53", Measured(0.55, 0.004), "agrees"),
        (Within(3, published_stderr=None), "0.53", Measured(0.55, 0.005), "agrees"),
        (Within(3, published_stderr=None), "0.53", Measured(0.57, 0.005), "differs"),
        (Near(0.1), "−1", Measured(-1.09), "agrees"),
        (Near(0.1), "−1", Measured(-0.89), "differs"),
        (Digits(), "1", Measured(float("nan")), "differs"),
        (Near(9.0), "1", Measured(float("nan")), "differs"),
        (Within(9), "1", Measured(float("nan"), 1.0), "differs"),
    ],
)
def test_a_published_number_is_judged_by_its_rule(rule, published, ours, verdict):
    assert papers.judge(Target("x", "x", rule, published, "text"), ours) == (None, verdict)
    if verdict == "differs":  # a reference of our own is not contradicted, it only comes out otherwise
        assert papers.judge(Target("x", "x", rule, published, "own"), ours).overall == "not as expected"


def test_an_ordering_holds_by_standard_errors():
    target = Target("x", "x", Above(errors=3), provenance="text")
    assert papers.judge(target, Measured(0.31, 0.1)).overall == "agrees"
    assert papers.judge(target, Measured(0.29, 0.1)).overall == "differs"
    assert papers.judge(target, Measured(float("nan"), 0.1)).overall == "differs"
    assert papers.judge(Target("x", "x", Above(30.0)), Measured(30.1)).overall == "agrees"
    for provenance in ("own", "mem", None):
        judged = papers.judge(dataclasses.replace(target, provenance=provenance), Measured(0.29, 0.1))
        assert judged.overall == "not as expected"


def test_being_right_and_being_agreed_with_are_two_questions():
    target = Target("x", "x", Digits(), "1.0", "text", exact=1.0)
    assert papers.judge(target, Measured(1.01)) == ("wrong", "agrees")
    assert papers.judge(target, Measured(1.01)).overall == "wrong"
    assert papers.judge(target, Measured(1.01, 0.01)) == ("agrees", "agrees")
    assert papers.judge(target, Measured(1.2, exact=1.2)) == ("agrees", "differs")
    assert papers.judge(target, Measured(1.2, exact=1.2)).overall == "differs"
    assert papers.judge(Target("x", "x", Digits(), exact=1.0), Measured(1.0 + 1e-12)) == ("agrees", None)
    assert papers.judge(Target("x", "x", Digits(), exact=1.0), Measured(1.0 + 1e-6)).overall == "wrong"
    # A rule that is stricter than 4.5 standard errors: a sample of four is no proof, an exact number is.
    assert papers.judge(Target("x", "x", Within(3), exact=1.0), Measured(1.4, 0.1)).overall == "not as expected"
    assert papers.judge(Target("x", "x", Near(1e-12), exact=1.0), Measured(1.0 + 1e-10)).overall == "wrong"
    with pytest.raises(ValueError, match="needs a published or an exact value"):
        papers.judge(Target("x", "x", Digits()), Measured(1.0))
    # Without a standard error of ours there is that of the paper, and its rounding.
    assert papers.judge(Target("x", "x", Within(), "1.0", "text"), Measured(1.06)).overall == "differs"
    assert papers.judge(Target("x", "x", Within(3, 0.01), "1.0", "text"), Measured(1.06)).overall == "agrees"


def test_a_tiny_run_judges_only_what_is_exact_at_every_size():
    judged = lambda target, ours: papers.judge(target, ours, tiny=True)
    unjudged = "not judged: tiny run"
    known = Target("x", "x", Digits(), "1.0", "text", exact=1.0)
    assert judged(known, Measured(9.0, 0.1)) == (unjudged, unjudged)
    assert judged(known, Measured(9.0)) == ("wrong", "differs")
    assert judged(Target("x", "x", Digits(), "1.0", "text"), Measured(9.0)) == (None, unjudged)
    assert judged(Target("x", "x", Above(), provenance="text"), Measured(-9.0)) == (None, unjudged)
    assert judged(Target("x", "x", Within(3), exact=1.0), Measured(9.0, 0.1)) == (unjudged, None)


def test_shares_and_differences_have_errors():
    none = Measured.share([False] * 100)
    assert none.value == 0 and none.stderr == pytest.approx((1 / 102 * 101 / 102 / 100) ** 0.5)
    assert Measured.share([True, False], percent=True).value == 50.0
    assert Measured.of([1.0, 3.0]) == Measured(2.0, 1.0)
    assert Measured(3.0, 0.3, 3.0).minus(Measured(1.0, 0.4, 2.0)) == Measured(2.0, 0.5, 1.0)


PAPER = papers.Paper(
    citation="Nobody 2021",
    claim="Everything is fine.",
    targets=(
        Target("value", "v*", Digits(), "−11.6", "text", headline="v*", why="It is cut off."),
        Target("own", "w", Digits(), "3.1", "own"),
        Target("lost", "gap", Digits(), "0.1", "mem"),
        Target("order", "a − b", Above(), provenance="text"),
    ),
    pitfalls=("The last reward is forgotten.",),
)


def run(config, recorder):
    measured = {"value": Measured(-11.65685), "order": Measured(2.0, 0.1), "own": Measured(3.0)}
    papers.check(recorder, PAPER, measured)


def test_every_target_gets_a_row_and_every_difference_its_reason(tmp_path):
    directory = runner.execute("nobody", None, run, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    # What was published stands first, and references of our own behind everything else.
    assert [row["quantity"] for row in summary["rows"]] == ["v*", "a − b", "gap", "w"]
    assert [row["verdict"] for row in summary["rows"]] == ["differs", "agrees", "not measured", "not as expected"]
    assert summary["rows"][0]["paper"] == -11.6 and summary["rows"][0]["provenance"] == "text"
    described = json.loads((directory / "paper.json").read_text())
    reasons = ["v*: differs. It is cut off.", "w: not as expected. We do not know why."]
    assert summary["notes"] == [*reasons, "The last reward is forgotten."]
    assert described["contradictions"] == [
        {"text": reasons[0], "provenance": "text", "verdict": "differs"},
        {"text": reasons[1], "provenance": "own", "verdict": "not as expected"},
    ]
    assert described["headline"] == [
        {"quantity": "v*", "published": "−11.6", "ours": "-11.657", "verdict": "differs", "provenance": "text"}
    ]
    assert described["judgements"]["value"] == {"exact": None, "source": "differs"}


def test_what_a_run_was_not_asked_for_has_no_row(tmp_path):
    def run_a_part(config, recorder):
        papers.check(recorder, PAPER, {"order": Measured(2.0, 0.1)}, left_out=("value", "own"))

    directory = runner.execute("nobody", None, run_a_part, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert [row["quantity"] for row in rows] == ["a − b", "gap"]
    assert list(json.loads((directory / "paper.json").read_text())["verdicts"]) == ["order", "lost"]


def test_a_number_that_nobody_asked_for_is_an_error():
    with pytest.raises(ValueError, match="no target is called speed"):
        papers.check(None, PAPER, {"speed": Measured(1.0)})
    with pytest.raises(ValueError, match="each key must stand once"):
        papers.Paper("x", "y", (PAPER.targets[0], PAPER.targets[0]))


@dataclasses.dataclass(frozen=True)
class Sizes:
    runs: int = 20
    full: bool = False


def test_the_papers_own_size_is_asked_for_alone():
    assert papers.full_size(Sizes(runs=7), {"runs": 100}).runs == 7
    assert papers.full_size(Sizes(full=True), {"runs": 100}).runs == 100
    with pytest.raises(runner.UsageError, match="--runs 7 and --full exclude each other"):
        papers.full_size(Sizes(runs=7, full=True), {"runs": 100})


@pytest.fixture
def two_modules(monkeypatch):
    """Two small modules in the place of the papers': the second fails until it is told not to."""
    healthy = {"second": False}

    def make(name):
        module = types.ModuleType(f"experiments.{name}")

        def run_one(config, recorder):
            if name == "second" and not healthy["second"]:
                raise RuntimeError("no luck <today>")
            run(config, recorder)

        def plot(results, recorder):
            figure, axes = plots.figure(f"The finding of {name} is < 1 & “good”", width=3, height=2)
            axes.plot([0, 1])
            recorder.figure(figure, "found")

        module.PAPER, module.Config, module.TINY, module.run, module.plot = PAPER, Sizes, Sizes(runs=1), run_one, plot
        monkeypatch.setitem(sys.modules, f"experiments.{name}", module)

    make("first"), make("second")
    monkeypatch.setattr(all_papers, "MODULES", {"first": {}, "second": {}})
    return healthy


class Reader(html.parser.HTMLParser):
    """What a browser would show and fetch."""

    def __init__(self):
        super().__init__()
        self.images, self.fetched, self.scripts = [], [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.scripts += tag == "script"
        if tag == "img":
            self.images.append((attributes["alt"], attributes["src"]))
        for name in ("src", "href"):
            link = attributes.get(name, "#")
            if not link.startswith(("#", "data:")):
                self.fetched.append(link)


@pytest.mark.parametrize("name", all_papers.MODULES)
@pytest.mark.parametrize("full", [False, True])
def test_a_modules_command_says_exactly_what_runs(name, full):
    module = importlib.import_module(f"experiments.{name}")
    options = all_papers.config_of(module, name, all_papers.Config(tiny=not full, full=full))
    words = page.arguments(name, reports.plain(options))
    assert words[:2] == ["-m", f"experiments.{name}"]
    asked = [*words[2:], "--devices", "1", "--no-cache", *["--tiny"] * (not full)]
    parsed = command_line.parse("", "A paper.", module.Config, asked, tiny=module.TINY)
    assert parsed.config == options and parsed.devices == 1 and parsed.cache is False and parsed.tiny is not full


def test_commands_run_a_few_at_once_and_say_how_they_end(tmp_path):
    program = "import pathlib, sys, time; here, me, other, code = sys.argv[1:]\n"
    program += "pathlib.Path(here, me).touch(); print('I am', me, flush=True)\n"
    # Each of the first two waits for the other; the third finds both done.
    program += "while not pathlib.Path(here, other).exists(): time.sleep(0.01)\nsys.exit(int(code))"
    order = {"a": ("b", 0), "b": ("a", 3), "c": ("a", 0)}
    commands = {me: [sys.executable, "-c", program, str(tmp_path), me, *map(str, rest)] for me, rest in order.items()}
    outputs = {me: tmp_path / f"{me}.txt" for me in order}
    ended = list(processes.run(commands, outputs, at_once=2))
    assert dict(ended) == {"a": 0, "b": 3, "c": 0} and ended[-1][0] == "c"
    assert [outputs[me].read_text() for me in order] == ["I am a\n", "I am b\n", "I am c\n"]


def test_what_runs_is_ended_when_nobody_waits_any_longer(tmp_path):
    commands = {"short": [sys.executable, "-c", ""], "long": [sys.executable, "-c", "import time; time.sleep(600)"]}
    started = time.monotonic()
    with contextlib.closing(processes.run(commands, {name: tmp_path / name for name in commands}, 2)) as ended:
        assert next(ended) == ("short", 0)
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_papers_in_processes_are_the_papers_in_one(tmp_path):
    rows = []
    for count in ("1", "2"):
        command = [sys.executable, "-m", "experiments.papers", "--tiny", "--only", "kl_estimators", "group_baselines"]
        command += ["--output-dir", str(tmp_path), "--run-name", count, "--devices", count]
        done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        directory = tmp_path / "papers" / count
        found = json.loads((directory / "summary.json").read_text())["rows"]
        rows.append([{name: value for name, value in row.items() if name != "seconds"} for row in found])
        assert (directory / "kl_estimators" / "output.txt").exists() == (count == "2")
    assert rows[0] == rows[1]


def run_all(tmp_path, name, **options):
    config = all_papers.Config(tiny=True, **options)
    return runner.execute("papers", config, all_papers.run, output_dir=tmp_path, run_name=name)


def test_one_paper_that_fails_leaves_the_others_and_the_run_goes_on_from_there(tmp_path, two_modules):
    with pytest.raises(RuntimeError, match="second failed"):
        run_all(tmp_path, "a")
    broken = tmp_path / "papers" / "a-incomplete"
    assert "These modules failed and are missing here: second." in (broken / "report.html").read_text()
    two_modules["second"] = True
    before = (broken / "first" / "run" / "summary.json").read_bytes()
    directory = runner.execute(
        "papers", all_papers.Config(resume=broken), all_papers.run, output_dir=tmp_path, run_name="b"
    )
    assert json.loads((directory / "config.json").read_text())["tiny"] is True
    assert (directory / "first" / "run" / "summary.json").read_bytes() == before
    page = (directory / "report.html").read_text()
    assert "failed and are missing" not in page
    assert "8 numbers and claims of 2 modules: 6 not judged, 2 not measured." in page
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert [row["quantity"] for row in rows] == [f"{name}: {q}" for name in ("first", "second") for q in QUANTITIES]


QUANTITIES = ("v*", "a − b", "gap", "w")


def test_what_was_run_with_other_options_is_run_again(tmp_path, two_modules):
    two_modules["second"] = True
    first = run_all(tmp_path, "a")
    whole = all_papers.Config(resume=first, only=("first",))
    other = runner.execute("papers", whole, all_papers.run, output_dir=tmp_path, run_name="b")
    assert json.loads((other / "first" / "run" / "config.json").read_text())["runs"] == Sizes.runs != 1
    stamp = json.loads((first / "first" / "run" / "environment.json").read_text())
    (first / "first" / "run" / "environment.json").write_text(json.dumps(stamp | {"commit": "0123abc"}))
    # The number of devices does not matter: a module in a process of its own has one of them.
    other = first / "second" / "run" / "environment.json"
    other.write_text(json.dumps(json.loads(other.read_text()) | {"device_count": 64}))
    page = (run_all(tmp_path, "c", resume=first) / "report.html").read_text()
    assert page.count("From an earlier run: commit 0123abc") == page.count("From an earlier run") == 1


def test_the_page_holds_every_figure_and_fetches_nothing(tmp_path, two_modules):
    two_modules["second"] = True
    directory = run_all(tmp_path, "a")
    page = (directory / "report.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.fetched == [] and reader.scripts == 0 and "url(" not in page and "@import" not in page
    names = ("first", "second")
    assert [alt for alt, _ in reader.images] == [f"The finding of {name} is < 1 & “good”" for name in names]
    for (_, source), name in zip(reader.images, names, strict=True):
        sent = base64.b64decode(source.removeprefix("data:image/png;base64,"))
        assert sent == (directory / name / "run" / "found.png").read_bytes()
    commit = json.loads((directory / "environment.json").read_text())["commit"]
    assert str(commit or "not from a git checkout") in page
    assert "from a quotation of it: 2. Remembered numbers: 2. Claims without a number: 2." in page
    assert "python -m experiments.<wbr>first --tiny</code>" in page


def test_a_tiny_run_claims_nothing_and_says_so(tmp_path, two_modules, capsys):
    two_modules["second"] = True
    directory = run_all(tmp_path, "a")
    page = (directory / "report.html").read_text()
    assert page.index("This is a tiny run.") < page.index("<table")
    # In the table, and at each paper.
    assert page.count('<span class="badge neutral">3 not judged, 1 not measured</span>') == 4
    assert "differs" not in page and "class='bad'" not in page
    shown = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("This is a tiny run.") for line in shown) == 1 and len(shown) < 20
    assert sum("3 not judged, 1 not measured" in line for line in shown) == 2 and any(
        "report.html" in line for line in shown
    )
    printed = (directory / "first" / "output.txt").read_text()
    assert "v*" in printed and not any("v*" in line for line in shown)


def test_the_page_shows_one_number_a_line_and_red_only_for_publications(tmp_path, two_modules):
    two_modules["second"] = True
    config = all_papers.Config(only=("first",))
    directory = runner.execute("papers", config, all_papers.run, output_dir=tmp_path, run_name="a")
    page = (directory / "report.html").read_text()
    assert "tiny run" not in page
    assert '<span class="badge bad">1 of 3 agree, 1 differs, 1 not as expected; 1 not measured</span>' in page
    red, grey = page.index('<section id="differs">'), page.index('<section id="unexpected">')
    assert red < page.index("(published): v*: differs. It is cut off.") < grey
    assert grey < page.index("(reference): w: not as expected. We do not know why.")
    assert page.count("<td class='bad' data-label=\"verdict\">differs</td>") == 2  # best-known, and number by number
    assert page.count('<tr class="reference">') == 1
    tables = json.loads((directory / "summary.json").read_text())["tables"]
    assert tables[1]["lines"] == [["first", "v*", "−11.6", "-11.657", "differs"]]


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LISTENER = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || event.target.tagName), true);
addEventListener("load", () => {
  const images = [...document.images].map(image => image.complete && image.naturalWidth > 0);
  const wide = document.documentElement.scrollWidth > innerWidth + 1;
  document.title = JSON.stringify({images, errors, wide});
});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_shows_every_figure_without_an_error(tmp_path, two_modules, width):
    two_modules["second"] = True
    directory = run_all(tmp_path, "a")
    page = (directory / "report.html").read_text()
    heard = tmp_path / "heard.html"
    heard.write_text(page.replace("<head>", "<head>" + LISTENER, 1))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom", heard.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = html.unescape(done.stdout.partition("<title>")[2].partition("</title>")[0])
    assert json.loads(title) == {"images": [True, True], "errors": [], "wide": False}
    assert ":CONSOLE" not in done.stderr


def test_what_may_be_chosen(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"seed": 0}')
    for options, words in (
        ({"only": ("four_rooms", "five_rooms")}, "--only five_rooms: must be some of short_corridor"),
        ({"only": ("four_rooms", "four_rooms")}, "must be a list that names each module once"),
        ({"full": True, "tiny": True}, "--full and --tiny exclude each other"),
        ({"resume": tmp_path}, "the directory of an earlier run"),
        ({"resume": tmp_path / "other"}, "the directory of an earlier run of all papers"),
    ):
        with pytest.raises(runner.UsageError, match=words):
            all_papers.Config(**options).validate()

"""The page in a headless Chromium, from the first key to a kill and a new start."""

import subprocess
import sys

import pytest
from browser import PROGRAM, Browser
from test_preferences_page import ROOT

from experiments.preferences import pairs
from pgjax.preferences import records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")]

SCRIPT = "<script>document.title = 'changed'</script><img src=x onerror=\"document.title = 'changed'\">"
LINES = [
    {"prompt": f"{number} {SCRIPT}", "answers": [SCRIPT + str(number), "x" * 300 + "\x1b[2J"]} for number in range(7)
]
DONE = "document.getElementById('bar').value"
SHOWN = "['prompt', 'first-text', 'second-text'].map(id => document.getElementById(id).textContent)"
TITLE = "document.title"
WIDE = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture
def serve(tmp_path):
    """Start servers on one file of labels; the first port is kept, as a person with an open page would want it."""
    pairs.write(tmp_path / "pairs.jsonl", LINES)
    started = []

    def start(port=0):
        command = [sys.executable, "-m", "experiments.preferences", "collect", "--port", str(port)]
        command += ["--pairs", str(tmp_path / "pairs.jsonl"), "--labels", str(tmp_path / "labels.jsonl")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().split()[1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_person_answers_by_keyboard_and_a_kill_loses_nothing(serve, tmp_path):
    path = tmp_path / "labels.jsonl"
    process, url = serve()
    with Browser(tmp_path / "profile") as browser:
        browser.open(url)
        browser.wait("document.getElementById('pair').hidden", False)
        seen = []
        for number, (key, verdict) in enumerate(
            [("1", "first"), ("ArrowRight", "second"), ("t", "equal"), ("b", "both_bad")], start=1
        ):
            prompt, *shown = browser.evaluate(SHOWN)
            browser.press(key)
            browser.wait(DONE, number)
            saved = records.read(path)
            better = shown[verdict == "second"]
            visible = saved[-1].chosen.replace("\x1b", "<U+001B>")
            assert len(saved) == number and (saved[-1].prompt, visible) == (prompt, better)
            assert saved[-1].tie == (verdict if verdict in ("equal", "both_bad") else None)
            assert 0 <= saved[-1].time_s < 60
            seen.append(prompt)
        assert len(set(seen)) == 4 and browser.evaluate(TITLE) == "Preferences"

        browser.press("u")
        browser.wait(DONE, 3)
        assert browser.evaluate(SHOWN)[0] == seen[-1] and len(records.read(path)) == 3
        browser.press("1", held=True)  # a key that is held down does not answer again
        browser.evaluate("new Promise(done => setTimeout(done, 200))")
        assert browser.evaluate(DONE) == 3

        before = browser.evaluate(SHOWN)
        process.kill()
        process.wait()
        browser.press("2")
        browser.wait("document.getElementById('message').hidden", False)
        assert "does not answer" in browser.evaluate("document.getElementById('message').textContent")
        assert browser.evaluate("document.activeElement.id") == "again" and len(records.read(path)) == 3

        _, again = serve(url.rstrip("/").rpartition(":")[2])
        assert again == url
        assert browser.evaluate(SHOWN) == before
        browser.evaluate("document.getElementById('again').click()")  # with the new token, which the page asks for
        browser.wait(DONE, 4)
        assert (records.read(path)[-1].prompt, len(records.read(path))) == (before[0], 4)
        while browser.evaluate("document.getElementById('end').hidden"):
            done = browser.evaluate(DONE)
            browser.evaluate("document.getElementById('first').click()")
            browser.wait(DONE, done + 1)
        assert len(records.read(path)) == browser.evaluate("document.getElementById('bar').max") == 8
        assert {request.startswith(url) for request in browser.requested()} == {True}


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_and_can_be_read(serve, tmp_path, dark):
    _, url = serve()
    with Browser(tmp_path / "profile") as browser:
        for width, height, mobile in ((1280, 800, False), (360, 700, True)):
            browser.resize(width, height, mobile=mobile, dark=dark)
            browser.open(url)
            browser.wait("document.getElementById('pair').hidden", False)
            assert not browser.evaluate(WIDE)
            sizes = browser.evaluate(
                "[...document.querySelectorAll('nav button')].map(button => button.getBoundingClientRect())"
                ".map(box => [box.width, box.height])"
            )
            assert len(sizes) == 6 and all(w >= 44 and h >= 44 for w, h in sizes)
            contrasts = browser.evaluate(CONTRASTS)
            assert min(contrasts) >= 4.5, contrasts  # WCAG 2.1, level AA
            background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(23, 24, 26)" if dark else "rgb(253, 253, 252)")
        browser.screenshot(tmp_path / "page.png")
        names = browser.evaluate(
            "[...document.querySelectorAll('nav button')].map(button => button.textContent.trim())"
        )
        assert [name[0] for name in names] == ["1", "2", "t", "b", "s", "u"]
        assert browser.faults() == []


# The contrast of each text with what is behind it: (L₁ + 0.05) / (L₂ + 0.05) of the relative luminances.
CONTRASTS = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(x => x / 255)
    .map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4)
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  return ["question", "progress", "prompt", "first-text", "second-text", "first", "undo", "plan", "prompt-name"]
    .map(id => document.getElementById(id))
    .map(node => [light(parts(getComputedStyle(node).color)), light(behind(node))])
    .map(pair => (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05));
})()
"""

"""The page of the lecture: one HTML file that holds its figures and fetches nothing."""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import Any

from experiments.lecture.ideas import Lesson

FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Policy gradients, idea by idea</title>
<link rel="icon" href="data:,">
<style>STYLE</style>
</head>
<body>
<header>
<h1>Policy gradients, idea by idea</h1>
<p>Each idea has its equation, a short program that ran when this page was made, what came out, and the command of the
experiment that goes deeper. The symbols are those of the whole project: X<sub>t</sub> is an observation, A<sub>t</sub>
an action, R<sub>t+1</sub> the reward that it caused, G<sub>1</sub> the return of an episode, G<sub>t</sub> the return
from step t on, f(x, θ) the policy, ρ(θ) the objective.</p>
CONTENTS
</header>
<main>
BODY
</main>
</body>
</html>
"""
STYLE = """
:root { --ink: #1d1d1f; --grey: #5f6368; --paper: #fdfdfc; --line: #dcdcd8; --link: #0b57d0; --box: #f1f1ee; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e3; --grey: #a5a5a0; --paper: #17181a; --line: #3a3b3e; --link: #8ab4f8; --box: #232427; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 46rem; background: var(--paper); color: var(--ink);
  font: 1.05rem/1.6 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.3rem; line-height: 1.3; }
a { color: var(--link); }
section { border-top: 1px solid var(--line); margin-top: 2.2rem; padding-top: .4rem; }
pre { background: var(--box); border-radius: 6px; padding: .8rem; overflow-x: auto; font-size: .82rem; }
.equation { font-family: "STIX Two Math", "Cambria Math", Georgia, serif; font-size: 1.1rem; white-space: pre-wrap;
  border-left: 3px solid var(--link); padding: .3rem .9rem; margin: 1rem 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; height: auto; background: #fff; border-radius: 6px; }
.finding { font-weight: 600; } small, .source { color: var(--grey); font-size: .85rem; }
@media (max-width: 40rem) { body { padding: .8rem; font-size: 1rem; } .equation { font-size: 1rem; } }
"""


def write(lessons: Sequence[Lesson]) -> str:
    """The page of the lessons, in their order."""
    contents = "".join(f'<li><a href="#{each.idea.name}">{_text(each.idea.title)}</a></li>\n' for each in lessons)
    body = "\n".join(map(_section, lessons))
    return FRAME.replace("STYLE", STYLE).replace("CONTENTS", f"<ol>\n{contents}</ol>").replace("BODY", body)


def _section(lesson: Lesson) -> str:
    idea = lesson.idea
    commands = " and ".join(f"<code>{_text(command)}</code>" for command in idea.command.split("   and   "))
    deeper = f"Go deeper: {commands}" if idea.command else "The experiment that goes deeper is not built yet."
    return "\n".join(
        [
            f'<section id="{idea.name}">',
            f"<h2>{_text(idea.title)}</h2>",
            *(f"<p>{_text(paragraph)}</p>" for paragraph in idea.text),
            f'<div class="equation">{_text(idea.equation)}</div>',
            f"<pre><code>{html.escape(lesson.code)}</code></pre>",
            f'<p class="finding">{_text(lesson.finding)}</p>',
            _figure(idea.draw(lesson.result)),
            f"<p>{deeper}</p>",
            f'<p class="source">Source: {_text(idea.source)}. The program took {lesson.seconds:.1f} s.</p>',
            "</section>",
        ]
    )


def _figure(figure: Any) -> str:
    title, file = " ".join(figure.get_suptitle().split()), io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    data = base64.b64encode(file.getvalue()).decode()
    return f'<figure><img alt="{html.escape(title, quote=True)}" src="data:image/png;base64,{data}"></figure>'


def _text(text: str) -> str:
    """Escaped for HTML; `X_t` and `X_{t+1}` get a subscript."""
    return re.sub(r"_(?:\{([^}]*)\}|([a-zA-Z0-9]))(?![a-z_])", r"<sub>\1\2</sub>", html.escape(text, quote=False))

"use strict";
// The texts of answers enter the page through textContent alone: they can contain anything.

const KEYS = {
  "1": "first", "ArrowLeft": "first", "2": "second", "ArrowRight": "second",
  "t": "equal", "b": "both_bad", "s": "skip", "u": "undo",
};
const SAID = {
  first: "First.", second: "Second.", equal: "Equal.", both_bad: "Both bad.", skip: "Skipped.", undo: "Undone.",
};
const at = id => document.getElementById(id);
const buttons = [...document.querySelectorAll("nav button")];

let state = null;    // what the server said last
let busy = true;     // a request is under way; keys and buttons wait
let retry = null;    // what "Try again" does
let looked = 0;      // milliseconds that this pair has been in sight
let since = null;    // the time at which it came into sight, or null while the page is hidden

function look() {
  since = document.hidden ? null : performance.now();
}

function seconds() {
  return (looked + (since === null ? 0 : performance.now() - since)) / 1000;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) looked += performance.now() - since;
  look();
});

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({token: state.token, ...body}),
  };
  const reply = await fetch(path, {cache: "no-store", ...options});
  const content = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(content.error), {status: reply.status});
  return content;
}

// Sends a request and shows the state that comes back. Nothing is shown as saved before the server has said so.
async function send(path, body, said) {
  busy = true;
  enable();
  try {
    show(await ask(path, body), said);
  } catch (error) {
    fail(error, () => send(path, body, said));
  }
}

async function fail(error, again) {
  if (state !== null && (error.status === 403 || error.status === 409)) {
    try {
      const found = await ask("state");
      // The server was started again and has another token. It asks the same pair, so the answer is sent once more.
      const renewed = found.token !== state.token && found.trial?.name === state.trial?.name;
      if (error.status === 403 && renewed) {
        state = found;
        return again();
      }
      // The pair was answered in another window: what the server knows counts.
      return show(found, "The page shows what the server knows now.");
    } catch (other) {
      error = other;
    }
  }
  const gone = "The server does not answer. The answers until now are saved. Start the same command again, " +
    "open the address that it prints, or try again here.";
  at("message").textContent = error.status === undefined ? gone : error.message;
  at("message").hidden = at("again").hidden = false;
  retry = again;
  at("again").focus();
}

function show(found, said) {
  state = found;
  busy = false;
  retry = null;
  const trial = state.trial;
  at("message").hidden = at("again").hidden = true;
  at("question").textContent = state.question;
  at("progress").textContent = state.progress;
  at("bar").value = state.done;
  at("bar").max = Math.max(1, state.total);
  at("pair").hidden = trial === null;
  at("end").hidden = trial !== null;
  at("file").textContent = state.file;
  at("prompt").textContent = trial === null ? "" : trial.prompt;
  at("first-text").textContent = trial === null ? "" : trial.answers[0];
  at("second-text").textContent = trial === null ? "" : trial.answers[1];
  at("spoken").textContent = `${said ?? ""} ${trial === null ? "All pairs are answered." : "Next pair."}`;
  enable();
  at(trial === null ? "end" : "pair").focus({preventScroll: true});
  scrollTo(0, 0);
  looked = 0;
  look();
  plan();
}

// The forecast takes up to a second, so it never holds up the next pair.
async function plan() {
  try {
    at("plan").textContent = (await ask("plan")).text;
  } catch {
    at("plan").textContent = "";
  }
}

function enable() {
  for (const button of buttons) {
    const possible = button.id === "undo" ? state?.can_undo : state?.trial;
    button.disabled = busy || !possible;
  }
}

function act(verdict) {
  const button = at(verdict);
  if (busy || button.disabled) return;
  if (verdict === "undo") return send("undo", {}, SAID.undo);
  send("answer", {trial: state.trial.name, verdict, seconds: Math.min(seconds(), 86400)}, SAID[verdict]);
}

document.addEventListener("keydown", event => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const verdict = KEYS[key];
  // A key that is held down must not answer the next pair as well.
  if (!verdict || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(verdict);
});
for (const button of buttons) button.addEventListener("click", () => act(button.id));
at("again").addEventListener("click", () => retry && retry());

send("state", undefined, "");

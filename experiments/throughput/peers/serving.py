"""How a peer answers: one line of JSON for each thing that it is asked.

A peer is a process `PYTHON peers/NAME.py OPTIONS`, where OPTIONS is one JSON object. It prints a first line when it is
ready. Then it reads numbers of seconds, one a line, works for that time, and prints the steps and the seconds that it
took. It ends when its input ends. With `"work": "solve"` it learns CartPole-v1 instead and prints one line about it.
These files run in the environment of the peers, so they import nothing of this project but each other.
"""

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import cartpole


def options() -> dict[str, Any]:
    """The JSON object on the command line."""
    return json.loads(sys.argv[1])


def answer(found: Mapping[str, Any]) -> None:
    print(json.dumps(dict(found)), flush=True)


def versions(*packages: str) -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def work(
    given: Mapping[str, Any], advance: Callable[[], int], act: Callable[[Any], Any], used: Mapping[str, str]
) -> None:
    """Do what `given["work"]` says: learn until CartPole-v1 is solved, or answer until the input ends.

    Args:
        advance: learns for a while and returns the number of steps.
        act: the greedy actions for observations `[100, 4]` of CartPole-v1.
        used: the versions of the packages.
    """
    if given["work"] == "solve":
        solve(advance, lambda: cartpole.mean_return(act, given["seed"]), used, given["solved"], given["limit"])
    else:
        serve(advance, used)


def serve(advance: Callable[[], int], used: Mapping[str, str]) -> None:
    """Answer until the input ends. `advance()` learns for a while and returns the number of steps.

    The first call compiles what has to be compiled, and is not measured.
    """
    start = time.perf_counter()
    advance()
    answer({"ready": True, "first_result_seconds": time.perf_counter() - start, "versions": used})
    for line in sys.stdin:
        wanted, steps, begin, cpu = float(line), 0, time.perf_counter(), time.process_time()
        while True:
            steps += advance()
            passed = time.perf_counter() - begin
            if passed >= wanted:
                break
        answer({"steps": steps, "seconds": passed, "cpu_seconds": time.process_time() - cpu})


def solve(
    learn: Callable[[], int], score: Callable[[], float], used: Mapping[str, str], solved: float, limit: float
) -> None:
    """Learn until `score()` reaches `solved`, or for `limit` seconds of learning, and answer.

    Args:
        learn: learns for a while and returns the number of steps.
        score: the mean return of 100 greedy episodes. Its seconds are told, so that they can be taken away.
    """
    learning, evaluation, steps, evaluations, reached = 0.0, 0.0, 0, 0, 0.0
    while reached < solved and learning < limit:
        start = time.perf_counter()
        steps += learn()
        middle = time.perf_counter()
        reached, evaluations = score(), evaluations + 1
        learning, evaluation = learning + middle - start, evaluation + time.perf_counter() - middle
    answer(
        {
            "solved": bool(reached >= solved),
            "score": float(reached),
            "steps": steps,
            "evaluations": evaluations,
            "learning_seconds": learning,
            "evaluation_seconds": evaluation,
            "versions": used,
        }
    )

"""A turn of twelve steps is killed wherever it can be, and every time it ends as if nothing had been."""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.effects import Effects
from harness.killing import Killer
from harness.model import ScriptedModel
from harness.storm import Finished, Storm, tools
from harness.storm_check import coverage, problems
from harness.storm_plan import STEPS, Moment, Run, Victim, schedule
from harness.tenure import Place

FULL = os.environ.get("TENURE_SOAK") == "1"
RUNS = 100 if FULL else 4
AT_A_TIME = 4


@pytest.mark.soak
@pytest.mark.timeout(5400 if FULL else 400)
def test_a_turn_that_is_killed_at_every_boundary_ends_as_if_it_had_not_been(
    place: Place, model: ScriptedModel, http_api: Effects, mcp_server: Effects, killer: Killer
) -> None:
    seed = int(os.environ.get("TENURE_STORM_SEED") or random.randrange(10**6))
    print(f"TENURE_STORM_SEED={seed}")
    assert STEPS == 12
    place.agent("other")
    agent = place.agent("stormy", tools=tools())
    storm = Storm(place, agent, place.client(), model, http_api, mcp_server, killer, f"{place.name}-{seed}")
    quiet = storm.play(Run(RUNS, (), None, None))
    assert problems(storm, quiet, quiet) == [], quiet.log

    def one(run: Run) -> tuple[Finished, list[str]]:
        finished = storm.play(run)
        found = problems(storm, finished, quiet)
        if found:
            print(run, *found, *finished.log, sep="\n    ", flush=True)
        else:
            print(f"{run}: as it should be,{finished.log[-1]}", flush=True)
            storm.clear(finished)
        return finished, found

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = list(pool.map(one, schedule(seed, RUNS)))
    assert {str(finished.run): found for finished, found in runs if found} == {}
    hit = coverage(finished for finished, _ in runs)
    print(*(f"{count:4} {moment}: {victim}" for (moment, victim), count in sorted(hit.items())), sep="\n")
    assert set(hit) == {(moment.value, victim.value) for moment in Moment for victim in Victim}
    tags = [tag for finished, _ in runs for tag in (finished.tag, f"{finished.tag}-ask")]
    assert sum(map(model.refused, tags)) == 0

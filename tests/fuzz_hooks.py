"""What schemathesis is told beside the description: which things are there, and which token it must not revoke."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import schemathesis

KNOWN: dict[str, list[str]] = json.loads(os.environ["FUZZ_KNOWN"])
OWN = set(KNOWN.pop("own"))
LOT = random.Random(int(os.environ["FUZZ_SEED"]))


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Name something that is there in half of the well-formed requests; never whoever sends them."""
    given = case.path_parameters or {}
    well_formed = case.meta is None or case.meta.generation.mode == schemathesis.GenerationMode.POSITIVE
    for name, value in given.items():
        wanted = KNOWN.get("server" if name == "name" else name, [])
        if wanted and (value in OWN or (well_formed and LOT.random() < 0.5)):
            given[name] = LOT.choice(wanted)

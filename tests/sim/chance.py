"""Dice from one seed, and the mix of a run: each seed switches a part of the faults on, each as hard as it says.

Swarm testing: a run with all faults at once finds less than many runs with few of them each, because some faults hide
others (a hub that is killed every second never fills a queue).
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

Dice = random.Random

#: Faults that come by themselves, in the course of time, and how often an hour of one run sees them at full strength.
PER_HOUR = {
    "hub.kill": 60.0,
    "hub.stop": 24.0,
    "hub.freeze": 36.0,
    "hub.clock": 24.0,
    "hub.full": 18.0,
    "hub.slow": 36.0,
    "hub.broken": 12.0,
    "hub.damage": 6.0,
    "sidecar.kill": 90.0,
    "sidecar.stop": 36.0,
    "sidecar.freeze": 90.0,
    "sidecar.clock": 24.0,
    "sidecar.full": 18.0,
    "sidecar.ill": 18.0,
    "net.reset": 120.0,
    "net.half_open": 120.0,
    "net.partition": 72.0,
    "net.end": 30.0,
}

#: Faults at points of the program: the chance at full strength, each time one is passed.
PER_POINT = {
    "await.late": 1.0,  # through the loop: of the steps that are injected
    "await.kill": 0.0004,  # for each step between two injections, so that deaths are as rare as they should be
    "commit.crash_before": 0.02,
    "commit.crash_after": 0.02,
    "commit.fail": 0.02,
    "commit.fail_but_done": 0.006,
    "commit.slow": 0.05,
    "commit.late_news": 0.3,
    "commit.twice": 0.3,
    "commit.gather": 0.5,
    "journal.crash": 0.01,
    "journal.fail": 0.02,
    "journal.torn": 0.5,
    "call.twice": 0.02,
    "call.lost": 0.02,
    "message.twice": 0.01,
    "message.slow": 0.05,
    "hands.fault": 0.4,
    "hands.lie": 0.08,
    "hands.crash": 0.05,
    "hands.hang": 0.1,
    "hands.poison": 0.05,
    "hands.stubborn": 0.2,
    "hands.breach": 0.1,
    "message.breach": 0.5,
    "commit.error": 0.1,
}

#: How often what clients do happens in an hour, at full strength.
CLIENT_PER_HOUR = {
    "client.submit": 400.0,
    "client.batch": 20.0,
    "client.goal": 20.0,
    "client.cancel": 100.0,
    "client.retry": 100.0,
    "client.pause": 6.0,
    "client.drain_agent": 20.0,
    "client.pause_repo": 10.0,
    "client.pause_goal": 20.0,
    "client.delete": 30.0,
    "client.claim": 20.0,
    "client.watch": 15.0,
    "client.burst": 6.0,
    "client.tail": 20.0,
    "client.delete_agent": 6.0,
    "client.rename_agent": 20.0,
    "client.rotate_token": 6.0,
    "client.token": 20.0,
    "client.repo": 20.0,
    "client.watch_goals": 15.0,
    "client.drain_hub": 3.0,
}


#: What people do now and then, and all the time where they are busy.
AT_A_DESK = frozenset(fault for fault, per_hour in CLIENT_PER_HOUR.items() if per_hour <= 30.0) - {"client.burst"} | {
    "sidecar.stop"
}
BUSY = 6.0

#: They came later, and have dice of their own, so that what the older seeds roll for the others stays as it was.
NEWER = frozenset(
    {
        "hub.damage",
        "hands.breach",
        "message.breach",
        "commit.error",
        "client.rename_agent",
        "client.rotate_token",
        "client.token",
        "client.repo",
        "client.watch_goals",
        "client.drain_hub",
    }
)

#: What may go wrong when only the hub's process dies.
HUB_ONLY = frozenset(
    {
        "hub.kill",
        "hub.stop",
        "commit.crash_before",
        "commit.crash_after",
        "commit.twice",
        "commit.gather",
        "client.submit",
        "client.batch",
        "client.burst",
        "client.watch",
    }
)


@dataclass(slots=True)
class Mix:
    """What a seed chose."""

    seed: int
    #: Times of the hub and of the work are multiplied by it: seconds-long leases, or hours-long work.
    scale: float
    #: How long there are faults.
    chaos_s: float
    sidecars: int
    slots: int
    #: Messages that fit into one way of a stream unread.
    window: int
    latency_s: float
    fsync_s: float
    #: How strong each fault is, 0 to 1.
    strength: dict[str, float]
    #: Steps between two injections.
    interrupt_every: float
    shuffle: float
    #: What has ended is soon forgotten; how long it is kept, in seconds, at scale 1. 0: it is kept.
    keep_s: float = 0.0
    #: Callers have tight limits, and little is borne of them.
    limited: bool = False
    #: People steer all the time.
    busy: bool = False
    #: Without progress for so long an attempt is stuck; at scale 1.
    stuck_s: float = 300.0
    #: Messages of one stream read and not yet applied, at either end.
    queue: int = 64
    #: Which part of all awaits is armed for a strike.
    armed: float = 0.0
    #: If not empty: only these awaits are armed, for their first suspension.
    hunted: frozenset[str] = frozenset()
    #: Only the hub's process dies, and nothing else goes wrong: then nothing may be done twice.
    hub_only: bool = False

    def hourly(self, fault: str) -> float:
        """How often an hour; an hour of slow work counts like one of quick work."""
        rates = PER_HOUR if fault in PER_HOUR else CLIENT_PER_HOUR
        busy = BUSY if self.busy and fault in AT_A_DESK else 1.0
        return busy * rates[fault] * self.strength[fault] / self.scale

    def chance(self, fault: str) -> float:
        """Of a fault at a point."""
        return PER_POINT[fault] * self.strength[fault]


def dice(seed: int, *names: object) -> Dice:
    """Dice of their own for each part, so that a change of one part leaves the others' rolls alone."""
    return Dice(":".join(map(str, (seed, *names))))


def mix(seed: int, *, hours: float | None = None) -> Mix:
    """The mix of a seed."""
    rng = dice(seed, "mix")
    scale = rng.choice((1.0, 1.0, 10.0, 60.0))
    strength: dict[str, float] = {}
    for fault in (*PER_HOUR, *PER_POINT):
        if fault in NEWER:
            continue
        strength[fault] = 0.2 + 0.8 * rng.random() if rng.random() < 0.4 else 0.0
    for fault in CLIENT_PER_HOUR:
        if fault in NEWER:
            continue
        strength[fault] = rng.random() if rng.random() < 0.6 else 0.0
    strength["client.submit"] = max(strength["client.submit"], 0.2)
    hub_only = rng.random() < 0.1
    newer = dice(seed, "newer")
    for fault in sorted(NEWER):
        strength[fault] = 0.2 + 0.8 * newer.random() if newer.random() < 0.4 else 0.0
    if hub_only:
        for fault in strength:
            if fault not in HUB_ONLY:
                strength[fault] = 0.0
        for fault in ("client.submit", "hub.kill", "commit.crash_before", "commit.crash_after"):
            strength[fault] = 0.2 + 0.8 * rng.random()
    awaits = strength["await.late"] or strength["await.kill"]
    return Mix(
        seed=seed,
        scale=scale,
        chaos_s=(hours * 3600.0 if hours else rng.choice((240.0, 420.0, 600.0)) * scale),
        sidecars=rng.choice((1, 2, 2, 3, 4)),
        slots=rng.choice((1, 1, 2, 4)),
        window=rng.choice((2, 16, 256)),
        latency_s=rng.choice((0.0002, 0.005, 0.1)),
        fsync_s=rng.choice((0.0005, 0.005, 0.05)),
        strength=strength,
        interrupt_every=rng.choice((5.0, 30.0, 200.0)) if awaits else 0.0,
        shuffle=rng.choice((0.0, 0.5)),
        keep_s=newer.choice((0.0, 0.0, 60.0, 400.0)),
        limited=newer.random() < 0.2 and not hub_only,
        queue=newer.choice((1, 1, 64)),
        busy=newer.random() < 0.3 and not hub_only,
        stuck_s=newer.choice((60.0, 300.0)),
        armed=newer.choice((0.0, 0.3, 1.0, 1.0)),
        hub_only=hub_only,
    )


@dataclass(slots=True)
class Tally:
    """What was done to the system, for the summary."""

    faults: Counter[str] = field(default_factory=Counter)
    #: Lines of the product at which a step came late, or its process was killed.
    places: Counter[str] = field(default_factory=Counter)
    #: Awaits at which a strike did something, and what.
    struck: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Transactions at whose commit something was done, by fault.
    commits: Counter[tuple[str, str]] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)

    def hits(self) -> Counter[str]:
        """How often something was done at each await."""
        found = self.places.copy()
        for (place, _), count in self.struck.items():
            found[place] += count
        return found

    def add(self, other: Tally) -> None:
        self.faults.update(other.faults)
        self.places.update(other.places)
        self.struck.update(other.struck)
        self.commits.update(other.commits)
        self.scripts.update(other.scripts)

"""Names for agents that nobody gave one: two words that can be said aloud, such as `brisk-heron`."""

from __future__ import annotations

import random

# All lower case and short, so that two of them and a dash are a good id; none is an insult beside any other.
MANNERS = (
    "able", "agile", "amber", "apt", "blithe", "bold", "brave", "brisk", "bright", "calm", "candid", "clear", "clever",
    "crisp", "deft", "eager", "early", "fair", "firm", "fleet", "fond", "frank", "gentle", "glad", "grand", "handy",
    "hardy", "honest", "jolly", "keen", "kind", "light", "lively", "loyal", "lucid", "merry", "mild", "neat", "nimble",
    "noble", "patient", "plain", "polite", "prompt", "proud", "quick", "quiet", "rapid", "ready", "sharp", "silver",
    "smart", "smooth", "sound", "spry", "steady", "still", "sunny", "sure", "swift", "tidy", "true", "warm", "wise",
)  # fmt: skip
BEINGS = (
    "alder", "ant", "aspen", "badger", "beaver", "bee", "birch", "bison", "cedar", "clover", "crane", "cricket",
    "curlew", "dove", "eagle", "egret", "elm", "falcon", "fern", "finch", "fox", "gull", "hare", "hawk", "hazel",
    "heron", "ibis", "ivy", "jay", "juniper", "kestrel", "kite", "lark", "larch", "linden", "lynx", "maple", "marten",
    "mole", "moss", "newt", "oak", "osprey", "otter", "owl", "pine", "plover", "poplar", "quail", "raven", "robin",
    "rowan", "sage", "seal", "shrew", "spruce", "stork", "swan", "swift", "tern", "thrush", "vole", "willow", "wren",
)  # fmt: skip


def invent(rng: random.Random) -> str:
    """One of some four thousand names; whether it is taken is for the hub to say."""
    return f"{rng.choice(MANNERS)}-{rng.choice(BEINGS)}"

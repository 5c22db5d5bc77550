"""The sidecar's journal on a simulated disk: the real records and frames, and what a crash, a full disk or a torn write
leaves of them.

What is appended is durable when its fsync has ended. A crash keeps what was synced and some part of the rest; a write
that failed may yet be found on the disk by the next process, unless the journal was rewritten before.
"""

from __future__ import annotations

from kit import errors
from sidecar.core import record
from sidecar.core.assignment import Done, Holding
from sidecar.core.record import Open, Record
from tests.sim.process import Process, never


class JournalDisk:
    """What stays of a sidecar when its process dies."""

    def __init__(self) -> None:
        self.synced = b""
        #: Written and not synced.
        self.loose = b""
        self.full = False


class SimJournal:
    """`sidecar.wire.journal.Journal`, by its shape."""

    def __init__(self, disk: JournalDisk, process: Process) -> None:
        self._disk = disk
        self._process = process
        self._dice = process.world.dice("journal", process.name, process.world.number(f"journal {process.name}"))
        process.at_death.append(self._crash)
        self._open = {one.holding: one for one in record.still_open(record.scan(disk.synced).records)}
        self._broken = False
        #: The next sync fails.
        self.fail_next = False
        self._compact()

    def still_open(self) -> list[Open]:
        return list(self._open.values())

    @property
    def live(self) -> dict[Holding, Open]:
        """What it would say after a restart."""
        return self._open

    @property
    def size_bytes(self) -> int:
        return len(self._disk.synced)

    async def append(self, *records: Record) -> None:
        process, world = self._process, self._process.world
        if process.dead:
            await never()
        bodies = [record.encode(one) for one in records]
        done = world.loop.create_future()

        def sync() -> None:
            if self._roll("journal.crash"):
                process.kill("before its journal was synced")
                return
            if self._broken:
                self._compact()
            failed = self._disk.full or self.fail_next or self._roll("journal.fail")
            self.fail_next = False
            self._write(bodies)
            if failed:
                self._broken = True  # some of it may be there: nobody knows until the rewrite
                if not done.done():
                    done.set_exception(errors.Unavailable("the journal cannot be written", reason="JOURNAL_FAILED"))
                return
            self._disk.synced += self._disk.loose
            self._disk.loose = b""
            for one in records:
                record.apply(self._open, one)
            if not done.done():
                done.set_result(None)

        process.call_later(world.mix.fsync_s * (0.5 + self._dice.random()), sync)
        await done

    def note(self, entry: Record) -> None:
        if self._process.dead:
            return
        if isinstance(entry, record.Closed) and entry.reason == "acked":
            known = self._open.get(entry.holding)
            is_done = known is not None and isinstance(known.outcome, Done)
            self._process.world.log.acked(self._process, entry.holding, "done" if is_done else "")
        self._write([record.encode(entry)])
        record.apply(self._open, entry)

    def close(self) -> None:
        self._disk.synced += self._disk.loose
        self._disk.loose = b""

    def _write(self, bodies: list[bytes]) -> None:
        for body in bodies:
            place = len(self._disk.synced) + len(self._disk.loose)
            self._disk.loose += record.frame(body, place)

    def _compact(self) -> None:
        image = b""
        for entry in self._open.values():
            for one in record.records_of(entry):
                image += record.frame(record.encode(one), len(image))
        self._disk.synced, self._disk.loose = image, b""
        self._broken = False

    def _crash(self) -> None:
        """The kernel may have written any part of what was not synced."""
        loose = self._disk.loose
        kept = self._dice.randrange(len(loose) + 1) if loose and self._roll("journal.torn") else 0
        self._disk.synced, self._disk.loose = self._disk.synced + loose[:kept], b""

    def _roll(self, fault: str) -> bool:
        world = self._process.world
        if self._dice.random() >= world.chance(fault):
            return False
        world.fault(fault, self._process.name)
        return True

"""What telemetry costs: hubs that tell nobody, tell their numbers, and tell their spans, too, in turns on one machine.

The processor time of the hub for a task is what is compared: it moves far less with the neighbours than rates do.
"""

from __future__ import annotations

import contextlib
import http.server
import statistics
import threading
from collections.abc import Iterator

from tests.bench import hub_side, load
from tests.bench.figures import Row
from tests.bench.process import Process
from tests.bench.run import Run, running

ROWS = ("telemetry",)
ROUNDS = 3
WARM_UP = 1_000
COUNT = 6_000
NUMBERS_MAX = 1.1
NUMBERS = (
    'prometheus_listen = "127.0.0.1:0"\notlp_endpoint = "{endpoint}"\notlp_protocol = "http"\notlp_every_s = 5.0\n'
)
SPANS = NUMBERS + "otlp_traces = true\n"


async def measure(run: Run) -> None:
    """The row of this file."""
    with _taking() as endpoint:
        off, numbers, spans = (
            _hub(run, name, settings.format(endpoint=endpoint))
            for name, settings in (("off", ""), ("numbers", NUMBERS), ("spans", SPANS))
        )
        async with (
            running(off, numbers, spans),
            hub_side.attached(off.address) as one,
            hub_side.attached(numbers.address) as two,
            hub_side.attached(spans.address) as three,
        ):
            sides: list[load.Side] = [one, two, three]
            for side in sides:
                await load.run(side, count=WARM_UP)
            count = run.scaled(COUNT, least=2_000)
            rates: list[list[float]] = [[], [], []]
            used_us: list[list[float]] = [[], [], []]
            for _ in range(ROUNDS):
                for number, (side, hub) in enumerate(zip(sides, (off, numbers, spans), strict=True)):
                    before_s = hub.cpu_s()
                    rates[number].append((await load.run(side, count=count)).per_s)
                    used_us[number].append((hub.cpu_s() - before_s) / count * 1e6)
    run.report(_row(rates, used_us))


def _row(rates: list[list[float]], used_us: list[list[float]]) -> Row:
    plain, told, traced = (statistics.median(one) for one in used_us)
    plain_per_s, told_per_s, traced_per_s = (statistics.median(one) for one in rates)
    return Row(
        "telemetry",
        "processor time of a hub for a task: numbers told, numbers and spans told, against nothing told",
        f"numbers <= x {NUMBERS_MAX}",
        f"{plain:.0f} us; numbers x {told / plain:.2f}; numbers and spans x {traced / plain:.2f} "
        f"(rates x {told_per_s / plain_per_s:.2f}, x {traced_per_s / plain_per_s:.2f})",
        told / plain <= NUMBERS_MAX,
        {"off_numbers_spans_us": used_us, "off_numbers_spans_per_s": rates},
    )


def _hub(run: Run, name: str, settings: str) -> Process:
    made = hub_side.process(run.folder / f"telemetry-{name}")
    with (run.folder / f"telemetry-{name}.toml").open("a") as config:
        config.write(f"[telemetry]\n{settings}")
    return made


@contextlib.contextmanager
def _taking() -> Iterator[str]:
    """A collector that takes everything and looks at nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}"
        finally:
            web.shutdown()
            thread.join()

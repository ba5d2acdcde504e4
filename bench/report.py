"""The results as tables and drawings: what stands between the markers of docs/performance.md.

The rest of the page is written by hand.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import candidates, floor
from .candidates import BARE, FLOOR
from .inprocess import NO_IDS, PEERS_IN_MEMORY, SCENARIOS
from .plots import Bar, bars

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/compared.md", "docs/performance.md")
OURS = "minisession"
NONE = "-"
NOISY = 0.1  # of the median: where the quartiles are farther apart, the figure gets a "~"
SMALL = 0.2  # µs: quartiles that are closer are never noise

Results = Mapping[str, Any]
"""What each part's `run` has returned, and in each ``about``, what it ran on."""


class Figure(NamedTuple):
    """The median of some rounds, and how far its quartiles are apart; both in µs."""

    value: float
    apart: float = 0.0

    def __str__(self) -> str:
        text = f"{self.value:.2f}" if abs(self.value) < 9.995 else f"{self.value:.1f}"
        return text + "~" * (self.apart > max(SMALL, NOISY * abs(self.value)))


# Sums


def costs(inprocess: Results) -> dict[str, dict[str, Figure]]:
    """Return what a session costs a request, by peer and scenario; of the floor, what each step does.

    The app with sessions and the one without are compared within a round: what disturbed both cancels out.
    """
    return {
        name: {scenario: _cost(halves["with"], halves["without"]) for scenario, halves in scenarios.items()}
        for name, scenarios in inprocess["rounds"].items()
    }


def _cost(with_sessions: list[float], without: list[float]) -> Figure:
    return figure([a - b for a, b in zip(with_sessions, without, strict=True)])


def figure(rounds: list[float]) -> Figure:
    """Return what is written of some rounds."""
    if len(rounds) == 1:
        return Figure(rounds[0])
    first, median, third = statistics.quantiles(rounds, method="inclusive")
    return Figure(median, third - first)


def floors(inprocess: Results) -> dict[str, Figure]:
    """Return what each scenario costs at least, in µs: the sum of its steps."""
    steps = costs(inprocess)["floor"]
    return {scenario: Figure(sum(steps[step].value for step in taken)) for scenario, taken in floor.SCENARIOS.items()}


def best(peers: dict[str, dict[str, Figure]], scenario: str, among: Callable[[str], bool]) -> str | None:
    """Return the name of the cheapest peer but ourselves."""
    names = [name for name in peers if scenario in peers[name] and name != OURS and among(name)]
    return min(names, key=lambda name: peers[name][scenario].value, default=None)


PARTS_OF_OURS = {
    "wire/attributes.py": "cookie",
    "wire/cookies.py": "cookie",
    "wire/signing.py": "HMAC",
    "wire/": "JSON",
    "stores/": "store",
    "session.py": "session",
    "visit.py": "session",
    "exchange.py": "middleware",
    "middleware.py": "middleware",
    "response.py": "middleware",
}
"""Where minisession spends its time, by the beginning of a file's name; the others are "rest"."""


def profile(inprocess: Results) -> dict[str, dict[str, float]]:
    """Return how many µs of each scenario's request each part of minisession takes."""
    found: dict[str, dict[str, float]] = {}
    for scenario, samples in inprocess["profile"].items():
        whole = statistics.median(inprocess["rounds"][OURS][scenario]["with"])
        parts: dict[str, float] = defaultdict(float)
        for file, count in samples.items():
            if file:
                parts[_part_of(file)] += whole * count / sum(samples.values())
        found[scenario] = parts
    return found


def _part_of(file: str) -> str:
    return next((part for start, part in PARTS_OF_OURS.items() if file.startswith(start)), "rest")


# Tables


def table(head: Iterable[object], rows: Iterable[Iterable[object]], align: str = "--:") -> str:
    """Return Markdown; all columns but the first are figures, or aligned otherwise."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---", *[align] * (len(lines[0]) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def inprocess_tables(inprocess: Results) -> dict[str, str]:
    """Return the tables of the in-process part, by the names of their markers."""
    peers = costs(inprocess)
    steps = peers.pop("floor")
    return {
        "costs": _costs_table(peers),
        "floor": _floor_table(peers, floors(inprocess)),
        "sent": _sent_table(inprocess["checks"], in_order(peers)),
        "profile": _profile_table(profile(inprocess), steps) if OURS in peers else "",
    }


def _costs_table(peers: dict[str, dict[str, Figure]]) -> str:
    rows = [
        [PEERS_IN_MEMORY[name].title, *(peers[name].get(each, NONE) for each in SCENARIOS)] for name in in_order(peers)
    ]
    return table(["µs", *SCENARIOS], rows)


def in_order(peers: dict[str, dict[str, Figure]]) -> list[str]:
    """Return the peers' names: ours, those with a store, those without; the cheaper to read first."""
    return sorted(peers, key=lambda name: (name != OURS, PEERS_IN_MEMORY[name].kind == NO_IDS, peers[name]["read"]))


def _floor_table(peers: dict[str, dict[str, Figure]], least: dict[str, Figure]) -> str:
    kinds: dict[str, Callable[[str], bool]] = {
        "best with a store": lambda name: PEERS_IN_MEMORY[name].kind != NO_IDS,
        "best signed cookie": lambda name: PEERS_IN_MEMORY[name].kind == NO_IDS,
    }

    def rival(scenario: str, among: Callable[[str], bool]) -> str:
        name = best(peers, scenario, among)
        if name is None:
            return NONE
        figure = peers[name][scenario]
        return f"{PEERS_IN_MEMORY[name].title} {figure}"

    rows = []
    for scenario in SCENARIOS:
        ours = peers.get(OURS, {}).get(scenario)
        times = NONE if ours is None else f"{ours.value / least[scenario].value:.1f}"
        rivals = (rival(scenario, among) for among in kinds.values())
        rows.append([scenario, least[scenario], NONE if ours is None else ours, times, *rivals])
    return table(["µs", "floor", OURS, "times the floor", *kinds], rows)


def _sent_table(checks: Mapping[str, Any], names: Iterable[str]) -> str:
    pages = ("cookie", "read", "write", "login")
    answers = {True: "**yes**", False: "no", None: NONE}
    rows = [
        [
            PEERS_IN_MEMORY[name].title,
            *(checks[name]["sent"][page] or NONE for page in pages),
            *(answers[checks[name]["lives"][when]] for when in ("regenerate", "logout")),
        ]
        for name in names
    ]
    return table(["bytes of Set-Cookie", *pages, "old id works on", "works after logout"], rows)


def _profile_table(parts: dict[str, dict[str, float]], steps: dict[str, Figure]) -> str:
    names = [*dict.fromkeys(PARTS_OF_OURS.values()), "rest"]
    rows = []
    for scenario in SCENARIOS:
        least: dict[str, float] = defaultdict(float)
        for step in floor.SCENARIOS[scenario]:
            least[floor.STEPS[step].part] += steps[step].value
        rows.append([scenario, *(_beside(parts[scenario].get(name, 0), least[name]) for name in names)])
    return table(["µs (floor)", *names], rows)


def _beside(ours: float, least: float) -> str:
    return f"{ours:.2f} ({least:.2f})" if ours or least else NONE


def http_tables(result: Results) -> dict[str, str]:
    """Return the table of the part over HTTP."""
    rows = []
    for read, write in zip(*(result["tables"][page] for page in ("read", "write")), strict=True):
        pages = (f"{page['rate']:,.0f}{_tilde(page)}" for page in (read, write))
        shares = (f"{page['ratio']:.2f} ({page['cpu_ratio']:.2f})" for page in (read, write))
        rows.append([read["peer"], f"{read['bare_rate']:,.0f}", *pages, *shares, _plain(read["cpu_cost_us"])])
    head = ["requests a second", "without sessions", "read", "write", "read: share", "write: share", "read: µs of CPU"]
    return {"load": table(head, rows)}


Added = dict[str, dict[str, list[float]]]
"""What a session adds to a request under a server, in µs of each round, by peer and page."""


def added(insitu: Results) -> Added:
    """Return it, always compared with the app without sessions in the same round."""
    return {
        name: {
            page: [with_ - without for with_, without in zip(rounds, took[BARE], strict=True)]
            for page, rounds in took.items()
            if page != BARE
        }
        for name, took in insitu["rounds"].items()
    }


def times(costs: Added, name: str, other: str, page: str) -> float | None:
    """Return how many times another's cost one's is, compared within a round; None of its own or what is not there."""
    if name == other or not {name, other} <= costs.keys():
        return None
    rounds = zip(costs[name][page], costs[other][page], strict=True)
    return statistics.median(ours / theirs for ours, theirs in rounds)


def insitu_tables(result: Results) -> dict[str, str]:
    """Return the table of the part under waitress."""
    costs = added(result)
    pages = [*costs[FLOOR]]

    def ratio(name: str, other: str, page: str) -> str:
        value = times(costs, name, other, page)
        return NONE if value is None else f"{value:.2f}"

    rows = []
    for name in candidates.in_order(costs):
        cells = (f"{figure(costs[name][page])} ({ratio(name, FLOOR, page)})" for page in pages)
        shares = (ratio(OURS, name, page) for page in pages)
        rows.append([candidates.TITLES[name], figure(result["rounds"][name][BARE]), *cells, *shares])
    head = ["µs (times the floor)", "without sessions", *pages, *(f"{page}: minisession takes of it" for page in pages)]
    return {"costs": table(head, rows)}


SENTENCE = r"\d+ % of what it does with Beaker and \d+ % of what it does with Django"


def sentence(insitu: Results) -> str:
    """Return what README says of a read, rounded to what another run would confirm."""
    costs = added(insitu)
    shares = {name: times(costs, OURS, name, "read") for name in ("beaker", "django")}
    return " and ".join(
        f"{5 * round(20 * (share or 0))} % of what it does with {candidates.TITLES[name].partition(',')[0]}"
        for name, share in shares.items()
    )


def memory_tables(result: Results) -> dict[str, str]:
    """Return the table of the part about memory."""
    rows = []
    for size, reading, expiry in zip(*(result["tables"][name] for name in ("size", "reading", "expiry")), strict=True):
        room = f"{size['rss_bytes']} ({size['used_bytes']})"
        rows.append([
            size["peer"], f"{size['sessions']:,}", room, _plain(size["create_us"]),
            _plain(reading["read_us"]) + _tilde(reading), _plain(reading["ratio"]), _plain(expiry["longest_ms"]),
            f"{expiry['left']:,}",
        ])  # fmt: skip
    head = [
        "with so many sessions", "", "bytes for each (used)", "login, µs", "read, µs", "times that with 1,000",
        "all expired: longest request, ms", "still held",
    ]  # fmt: skip
    return {"size": table(head, rows)}


def redis_tables(result: Results) -> dict[str, str]:
    """Return the tables of the part with Redis: the time, and the commands."""
    pages = result["tables"]
    peers = [[pages[page][number] for page in pages] for number in range(len(pages["read"]))]
    times = [
        [row[0]["peer"], *(f"{_plain(cell['wall_us'])}{_tilde(cell)} ({_plain(cell['cpu_us'])})" for cell in row)]
        for row in peers
    ]
    sent = [
        [row[0]["peer"], *(f"{cell['trips']:g}: {cell['commands']}" if cell["trips"] else NONE for cell in row)]
        for row in peers
    ]
    return {
        "costs": table(["µs (of the client's CPU)", *pages], times),
        "commands": table(["round trips: commands", *pages], sent),
    }


def _plain(figure: float) -> str:
    return f"{figure:.3g}" if abs(figure) < 1000 else f"{figure:,.0f}"


def _tilde(row: Mapping[str, Any]) -> str:
    return "~" if row["spread"] > NOISY else ""


def keeps_tables(result: Results) -> dict[str, str]:
    """Return the table of what each library keeps."""
    peers = ((name, result["found"][name]) for name in candidates.in_order(result["found"]))
    rows = [
        [
            candidates.TITLES[name],
            "both stay" if found["overlap"]["slow_write"]["first"] else "**the first is lost**",
            "it stays" if found["overlap"]["slow_read"]["first"] else "**it is undone**",
            _after_logout(found["logout"]),
            *_in_an_outage(found.get("down")),
        ]
        for name, found in peers
    ]
    head = [
        "", "two requests write different keys", "one writes while another reads",
        "logout while a request is under way", "store down: other pages", "store down: pages with a session",
    ]  # fmt: skip
    return {"table": table(head, rows, align="---")}


def _after_logout(found: Mapping[str, Any]) -> str:
    """Return whether the session ended, and if not, for whom it is there."""
    requests = {"writes": found["slow_write"], "reads": found["slow_read"]}
    for who, text in (("browser", "**logged in again**"), ("copy", "**the old cookie works again**")):
        if again := [page for page, after in requests.items() if after[who]]:
            return f"{text} by one that {' or '.join(again)}"
    return "logged out"


def _in_an_outage(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["no store", "no store"]
    answers = {200: "answered", 500: "**500**"}
    shown = found["show"]
    with_session = "**200, with an empty session**" if shown["empty"] else str(shown["status"])
    return [answers[found["untouched"]["status"]], with_session + "; **the cookie is gone**" * (not shown["back"])]


def machine(result: Results) -> str:
    """Return when and on what a part was measured."""
    about = result["about"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    setting = f" {result['setting'][0].upper()}{result['setting'][1:]}." if "setting" in result else ""
    return (
        f"Measured on {about['date']} with {about['python']} on {about['system']}, {about['cpus']} cores"
        f" of {about['cpu']}, load {about['load']}.{setting} {versions}."
    )


# The page


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Return the page with each block between its markers, where it has them; others keep what they have."""
    for name, block in blocks.items():
        marked = re.compile(rf"(?<=<!-- bench:{name} -->\n).*?(?=<!-- /bench -->)", re.S)
        page = marked.sub(f"\n{block}\n\n".replace("\\", r"\\"), page, count=1)
    return page


def blocks(part: str, result: Results) -> dict[str, str]:
    """Return a part's tables, and on what it was measured, by the names of their markers."""
    tables = {
        "keeps": keeps_tables,
        "inprocess": inprocess_tables,
        "insitu": insitu_tables,
        "http": http_tables,
        "memory": memory_tables,
        "redis": redis_tables,
    }
    return {f"{part}-machine": machine(result), **{f"{part}-{name}": t for name, t in tables[part](result).items()}}


def text(part: str, result: Results) -> str:
    """Return a part's tables, for a terminal."""
    return "\n\n".join(blocks(part, result).values())


def write(results: Results, root: Path = ROOT) -> None:
    """Bring the pages up to date, the drawings, and README's sentence.

    Raises:
        ValueError: a block has no markers on any page.
    """
    pages = {root / name: (root / name).read_text() for name in PAGES}
    found = {name: block for part, result in results.items() for name, block in blocks(part, result).items()}
    for name in found:
        if not any(f"<!-- bench:{name} -->" in page for page in pages.values()):
            raise ValueError(f"no page has <!-- bench:{name} -->")
    for path, page in pages.items():
        path.write_text(fill(page, found))
    for part, result in results.items():
        draw(part, result, root / "docs" / "images")
    if "insitu" in results:
        readme = root / "README.md"
        readme.write_text(re.sub(SENTENCE, sentence(results["insitu"]), readme.read_text()))


def draw(part: str, result: Results, folder: Path) -> None:
    """Draw a part's bars."""
    if part == "inprocess":
        peers = costs(result)
        del peers["floor"]
        panels = {
            scenario: [
                Bar(
                    PEERS_IN_MEMORY[name].title,
                    peers[name][scenario].value if scenario in peers[name] else 0,
                    "ours" if name == OURS else PEERS_IN_MEMORY[name].kind,
                    str(peers[name].get(scenario, "")),
                )
                for name in in_order(peers)
            ]
            for scenario in SCENARIOS[1:]
        }
        least = {scenario: sum_.value for scenario, sum_ in floors(result).items()}
        bars(folder / "performance-inprocess.svg", panels, least, columns=3)

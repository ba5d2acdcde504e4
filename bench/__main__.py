"""One command: ``python -m bench``.  README.md has what it needs."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyperf

from . import report
from .machine import about

PARTS = ("keeps", "inprocess", "insitu", "http", "memory", "redis")
EFFORTS = {
    "quick": "see that it works; the figures are worth little",
    "short": "fewer rounds: about 20 minutes for all parts",
}
RESULTS = Path(__file__).with_name("results.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or make the report; return the exit code: 1 if a part could not be measured."""
    args = _arguments(argv)
    if args.parts == ["report"]:
        report.write(json.loads(RESULTS.read_text()))
        return 0
    failed = False
    chosen = {name: value for name, value in {"names": args.peers, "pages": args.only}.items() if value}
    output = args.output or (None if args.effort == "quick" or chosen else RESULTS)
    for part in args.parts or PARTS:
        machine = about()
        try:
            result = import_module(f"bench.{part}").run(args.effort, **chosen)
        except (RuntimeError, ImportError) as error:
            print(f"{part}: not measured: {error}", file=sys.stderr)
            failed = True
            continue
        result["about"] = machine
        print(report.text(part, result))
        if args.pyperf:
            suite(result).dump(str(args.pyperf), replace=True)
        if output is not None:
            _keep(output, part, result)
    if output == RESULTS:
        report.write(json.loads(RESULTS.read_text()))
    return int(failed)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a session costs, beside its peers.")
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, "report", []], metavar="PART",
        help=f"{', '.join(PARTS)}: all by default; or report: docs/performance.md again, without measuring",
    )  # fmt: skip
    efforts = parser.add_mutually_exclusive_group()
    for effort, what in EFFORTS.items():
        efforts.add_argument(f"--{effort}", dest="effort", action="store_const", const=effort, help=what)
    names = lambda text: text.split(",")  # noqa: E731  # a def would be longer
    parser.add_argument("--peers", type=names, help="only these, as in a,b (with inprocess or insitu)")
    parser.add_argument("--only", type=names, help="only these pages, as in read,write (with insitu)")
    parser.add_argument("--pyperf", type=Path, help="a file for `python -m pyperf compare_to` (with inprocess)")
    parser.add_argument("--output", type=Path, help="by default bench/results.json, if all is measured in full")
    parser.set_defaults(effort="full")
    args = parser.parse_args(argv)
    if "report" in args.parts and args.parts != ["report"]:
        parser.error("report goes alone; it is also made after measuring")
    for option, value, parts in (
        ("--peers", args.peers, ["inprocess", "insitu"]),
        ("--only", args.only, ["insitu"]),
        ("--pyperf", args.pyperf, ["inprocess"]),
    ):
        if value and (len(args.parts) != 1 or args.parts[0] not in parts):
            parser.error(f"{option} goes with {' or '.join(parts)} alone")
    return args


def suite(inprocess: dict[str, Any]) -> pyperf.BenchmarkSuite:
    """Return what requests took with minisession, for pyperf to compare one run with another."""
    benchmarks = []
    for scenario, halves in inprocess["rounds"].get(report.OURS, {}).items():
        values = [microseconds * 1e-6 for microseconds in halves["with"]]
        run = pyperf.Run(values, metadata={"name": scenario, "unit": "second"}, collect_metadata=False)
        benchmarks.append(pyperf.Benchmark([run]))
    return pyperf.BenchmarkSuite(benchmarks)


def _keep(path: Path, part: str, result: dict[str, Any]) -> None:
    """Put a part's result into the file, and leave the other parts as they are."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[part] = result
    text = json.dumps(results, indent=1, sort_keys=True)
    text = re.sub(r"\[[-\d.,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)  # a line for each list
    path.write_text(text + "\n")


if __name__ == "__main__":
    sys.exit(main())

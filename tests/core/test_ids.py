"""Session ids: nothing but chance."""

from __future__ import annotations

import re
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from minisession.options import new_id

from ..support.rows import row
from ..support.site import Site

ALPHABET = set(string.ascii_letters + string.digits + "-_")  # base64url: 6 bits a character

FORKED = """
import os
from minisession.options import new_id

new_id({})
os.fork(), os.fork()
for _ in range(50):
    os.write(1, b"".join(f"{new_id({})}\\n".encode() for _ in range(100)))  # short enough not to be torn
"""


@row("S11", "P1")
def test_ids_are_192_random_bits_in_every_thread_and_every_forked_process() -> None:
    """A generator with a state of its own would repeat itself after a fork."""
    with ThreadPoolExecutor(8) as pool:
        threads = list(pool.map(lambda _: [new_id({}) for _ in range(2500)], range(8)))
    root = Path(__file__).parents[2]
    forks = subprocess.run([sys.executable, "-c", FORKED], cwd=root, capture_output=True, text=True, check=True)

    ids = [*chain(*threads), *forks.stdout.split()]

    assert len(set(ids)) == len(ids) == 40_000
    assert {len(id) for id in ids} == {32}
    assert all(set(characters) == ALPHABET for characters in zip(*ids, strict=True))


@row("P1")
def test_a_cookie_tells_nothing_of_its_user_or_of_another_session() -> None:
    """Two logins of one user: an id of chance, and its signature."""
    site = Site()
    values = []
    for _ in range(2):
        browser = site.browser()
        browser.visit(lambda session: session.regenerate(user="ada"))
        values.append(str(browser.cookie))

    assert all(re.fullmatch(r"s%3A[\w-]{32}\.[\w%]{43,}", value) for value in values)
    places = sum(one == other for one, other in zip(*(value[4:36] for value in values), strict=True))
    assert places < 8

"""Look for bytes that break a parser's word, guided by coverage.

::

    pip install atheris
    python -m tests.wire.fuzz.fuzz_parsers record found/ tests/wire/fuzz/corpus/record/ -max_total_time=450

The names are those of `parsers.CLAIMS`, the options libFuzzer's.  What is new goes to the first folder; a corpus
is made small by ``-merge=1 -set_cover_merge=1 small/ found/``, and replayed by tests/test_fuzz_corpus.py.
"""

import importlib
import logging
import sys
from typing import Any

atheris: Any = importlib.import_module("atheris")

# JSON's scanner in C has no coverage to go by: its twin in Python leads, and the replay goes through C.
scanner: Any = importlib.import_module("json.scanner")
decoder: Any = importlib.import_module("json.decoder")
scanner.make_scanner, decoder.scanstring = scanner.py_make_scanner, decoder.py_scanstring
for function in (scanner.py_make_scanner, decoder.JSONObject, decoder.JSONArray, decoder.py_scanstring):
    atheris.instrument_func(function)

with atheris.instrument_imports(include=["minisession", "tests"]):
    from tests.wire.fuzz.parsers import CLAIMS

if __name__ == "__main__":
    logging.disable()
    name = sys.argv[1]
    again = f"{sys.executable} -m tests.wire.fuzz.fuzz_parsers {name}"  # libFuzzer starts itself anew to merge
    atheris.Setup([again, *sys.argv[2:]], CLAIMS[name])
    atheris.Fuzz()

"""A form's fields, from a body that any client may have sent: bounded, strictly decoded, or refused."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

FORM = "application/x-www-form-urlencoded"
MAX_BODY = 64 * 1024  # bytes; a login needs a hundred


class BadForm(Exception):
    """The body is not one of our forms; ``status`` is the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def read_form(environ: dict[str, Any]) -> dict[str, str]:
    """Return a POST's fields; of several with one name, the last.

    Raises:
        BadForm: 413 over 64 KiB, 415 for another content type, 400 for what cannot be decoded.
    """
    declared = environ.get("CONTENT_LENGTH") or "0"
    if not re.fullmatch("[0-9]{1,18}", declared):  # int() would take "+1", "1_0" and " 1"
        raise BadForm(400)
    length = int(declared)
    if length > MAX_BODY:
        raise BadForm(413)
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != FORM and (kind or length):  # no body needs no type
        raise BadForm(415)
    body = environ["wsgi.input"].read(length)
    if len(body) < length or re.search(rb"%(?![0-9A-Fa-f]{2})", body):
        raise BadForm(400)
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:  # not UTF-8, as it was sent or percent-encoded
        raise BadForm(400) from None

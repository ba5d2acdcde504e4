"""Values that JSON returns unchanged: how deep, of which classes, and what stands for them."""

from __future__ import annotations

import enum
import json
from typing import Any

import pytest

from minisession import Cookie
from minisession.wire import record, values
from minisession.wire.record import Record


class Markup(str):
    """Markup as Django and Jinja have it, which answers for itself whatever it is asked."""

    def __str__(self) -> str:
        return self

    def __format__(self, spec: str) -> str:
        return "escaped"

    def __add__(self, other: str) -> str:
        return Markup("escaped")

    __radd__ = __add__


class Color(str, enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize(("levels", "fits"), [(200, True), (201, False)])
def test_lists_and_dicts_nest_200_deep(opening: str, levels: int, fits: bool) -> None:
    """What is assigned, and what the store has: it is loaded only if it could be stored again."""
    text = opening * levels + "1" + {"[": "]", '{"k":': "}"}[opening] * levels
    loaded = f'{{"cookie":{{}},"k":{text}}}'.encode()
    of_the_cookie = f'{{"cookie":{{"k":{text}}}}}'.encode()

    if fits:
        values.check("k", json.loads(text))
        assert record.decode(loaded).data == {"k": json.loads(text)}
        assert record.decode(of_the_cookie).data == {}
        return
    with pytest.raises(TypeError, match="nested more than 200 deep"):
        values.check("k", json.loads(text))
    for data in (loaded, of_the_cookie):
        with pytest.raises(ValueError, match="too deep"):
            record.decode(data)


@pytest.mark.parametrize(
    ("value", "plain"), [(Markup("<b>é"), "<b>é"), (Color.RED, "red"), (Size.LARGE, 3), ([Markup("<b>")], ["<b>"])]
)
def test_of_a_subclass_its_value_is_stored(value: Any, plain: Any) -> None:
    """Whatever else the class makes of it: JSON keeps what it is made of, and the same text stands for it."""
    values.check("k", value)

    assert values.text(value) == values.text(plain)
    assert type(values.text(value)) is str
    stored = record.encode(Record({"k": value}, None, None, None), record.frame(Cookie(), True), 0)
    assert record.decode(stored).data == {"k": plain}


@pytest.mark.parametrize("text", ["a", "é", "\ud83d"])
def test_half_a_pair_is_looked_for_in_markup_too(text: str) -> None:
    assert values.fit([Markup(text)]) == values.fit([text]) == (text != "\ud83d")


def test_a_dict_may_change_while_it_is_looked_through() -> None:
    """By another thread, whose part a value plays here."""

    class Busy(int):
        def __int__(self) -> int:
            several[f"{len(several)}"] = 1
            return 1

    several: dict[str, Any] = {"a": Busy(), "b": Busy()}

    assert values.fit([several])
    assert len(several) > 2


def test_a_stored_records_cookie_is_stored_again_whatever_its_order() -> None:
    """Its texts may hold the word that stands where the times go."""
    stored = b'{"cookie":{"path":"/null","sameSite":null,"originalMaxAge":5000},"minisession":{"created":7}}'

    again = record.encode(record.decode(stored), record.frame_of(stored), 7)

    times = {"originalMaxAge": 5000, "expires": "1970-01-01T00:00:07.000Z"}
    assert json.loads(again) == {"cookie": {**times, "path": "/null"}, "minisession": {"created": 7}}

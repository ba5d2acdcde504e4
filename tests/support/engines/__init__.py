"""Three browser engines behind one small interface, so that every story is told once.

::

    visitor.py    what a person does in a browser, in any engine
    chromium.py   Chromium, by Playwright
    firefox.py    Firefox, by WebDriver BiDi
    webkit.py     WebKitGTK, the engine of Safari and of GNOME's browser, by WebDriver

The tests drive the browsers that the system has.  Each starts with a profile of its own in a temporary folder,
talks to this machine only, and is ended by whoever started it.
"""

from .chromium import Chromium
from .firefox import Firefox
from .visitor import Cookie, Engine, Visitor
from .webkit import WebKit

ENGINES: tuple[type[Engine], ...] = (Chromium, Firefox, WebKit)

__all__ = ["ENGINES", "Chromium", "Cookie", "Engine", "Firefox", "Visitor", "WebKit"]

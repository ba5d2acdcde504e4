"""Server-side sessions for any WSGI app, wire-compatible with Node's express-session.

See `SessionMiddleware` and `get_session`; the rest is what they need, and `CrossOriginProtection`.
"""

from .crossorigin import CrossOriginProtection
from .errors import SessionConflict, SessionError, SessionGone, SessionTooLarge, StoreUnavailable
from .middleware import SessionMiddleware, get_session
from .session import Session
from .stores.base import ListingStore, Store, Stored
from .stores.memory import MemoryStore
from .stores.sqlite import SQLiteStore
from .stores.urls import open_store
from .users import SessionView, destroy_session, destroy_sessions_of, sessions_of
from .wire.attributes import Cookie

__all__ = [
    "Cookie",
    "CrossOriginProtection",
    "ListingStore",
    "MemoryStore",
    "SQLiteStore",
    "Session",
    "SessionConflict",
    "SessionError",
    "SessionGone",
    "SessionMiddleware",
    "SessionTooLarge",
    "SessionView",
    "Store",
    "StoreUnavailable",
    "Stored",
    "destroy_session",
    "destroy_sessions_of",
    "get_session",
    "open_store",
    "sessions_of",
]

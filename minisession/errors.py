"""Everything minisession raises on purpose.

::

    SessionError
    ├── SessionGone         the session ended while this request held it
    ├── SessionConflict     others kept changing it; nothing of this request's was stored
    ├── SessionTooLarge     the record is over ``max_bytes``; nothing was stored
    └── StoreUnavailable    the store is down, hung, full or read-only

`StoreUnavailable` and `SessionConflict` that reach the middleware become ``503`` with
``Retry-After``. Mistakes in arguments, keys and values are Python's own `TypeError` and
`ValueError`.
"""


class SessionError(Exception):
    """A session was used in a way that cannot work; the base of the others."""


class SessionGone(SessionError):
    """The session was destroyed, expired or given a new id meanwhile; it is never brought back."""


class SessionConflict(SessionError):
    """Other requests won every one of a bounded number of tries to store this session."""


class SessionTooLarge(SessionError):
    """The record would be larger than the middleware's ``max_bytes``; nothing was stored."""


class StoreUnavailable(SessionError):
    """The store could not do its work.  Absence and conflict are values, never this."""

"""Who owns a SQLite file: files that another user of the machine has planted are refused.

A record says who is logged in, so a user who puts the file, a link to it, or a log beside it in
place could log in as anyone.  Only what belongs to this process' user or to root is trusted.  The
folder may be another user's: the owners of the files in it count.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Links that are followed at most, which is the system's own limit.
LINKS = 40

# SQLite believes what it finds in files with these endings.
BESIDE = "-wal", "-shm", "-journal"


class PlantedError(OSError):
    """A file or link belongs to a user who is not trusted."""


def check_links(path: Path, links: int = LINKS) -> None:
    """Refuse a symbolic link on the way to ``path`` that another user may have planted.

    In a folder that everyone can write to, such as ``/tmp``, Linux itself does not follow the links
    of other users; but we open the path's target, and then it sees none.  A link that belongs to
    the folder's owner is followed: they decide in any case what is in their folder.

    Raises:
        PlantedError: there is one.
    """
    for place in (path, *path.parents) if links and hasattr(os, "geteuid") else ():
        if place.is_symlink():
            owner = place.lstat().st_uid
            if owner != place.parent.stat().st_uid:
                _check(place, owner)
            check_links(place.parent / os.readlink(place), links - 1)


def check_files(path: str) -> None:
    """Refuse another user's database, and what another user has put beside it.

    Several users may share a database that belongs to root and that their group can write to.  Then
    the files that SQLite makes beside it belong to one of them, and to the group.

    Raises:
        PlantedError: one of the files belongs to a user who is not trusted.
        FileNotFoundError: there is no database.
    """
    if not hasattr(os, "geteuid"):
        return
    database = os.lstat(path)
    _check(path, database.st_uid)
    for suffix in BESIDE:
        try:
            found = os.lstat(path + suffix)
        except FileNotFoundError:
            continue
        if not (database.st_mode & stat.S_IWGRP and found.st_gid == database.st_gid):
            _check(path + suffix, found.st_uid)


def _check(path: str | Path, owner: int) -> None:
    if owner not in (os.geteuid(), 0):
        raise PlantedError(
            f"{path} belongs to {_named(owner)}, neither to the user of this process nor to root,"
            " and would let them decide who is logged in: delete it, chown it, or run as that user"
        )


def _named(uid: int) -> str:
    # Here, because Windows has none.
    import pwd

    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"

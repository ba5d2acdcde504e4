"""Where sessions are kept: the only I/O.

A store knows ids, bytes, times and users; no cookies and no WSGI.
"""

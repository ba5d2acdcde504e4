"""What agrees with express-session: the cookie, its signature and the record.  Pure, no I/O."""

"""A small site that logs people in with minisession: an example to copy, and no part of the package."""

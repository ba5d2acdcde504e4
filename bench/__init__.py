"""What a session costs, beside its peers and its floor.  See README.md here, and docs/performance.md."""

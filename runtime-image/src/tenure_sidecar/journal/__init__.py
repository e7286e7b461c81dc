"""The journal: one append-only, sealed, fsynced log of a session."""

"""The session's files at `/workspace`, which code that nobody trusts can change at any moment."""

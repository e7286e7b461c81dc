"""The session as one file: written for a fork or an export, read where a session begins with it."""

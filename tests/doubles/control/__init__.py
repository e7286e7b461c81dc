"""What the stand-ins have in common: holds, at which a call waits until a test lets it go, and counts of effects."""

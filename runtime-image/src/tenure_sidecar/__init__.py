"""The sidecar: owns the journal of one session, is the only way to its model, and enforces what may be kept."""

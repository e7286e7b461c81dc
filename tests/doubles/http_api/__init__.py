"""A stand-in for somebody's HTTP API, described by the OpenAPI document that it serves.

It behaves as a good API does: an order is placed once for each `Idempotency-Key`, however often it is asked for. A
payment knows no keys: whoever asks twice pays twice. All is counted by the `tag` that the caller chooses; see
`control`.
"""

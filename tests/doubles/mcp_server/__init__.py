"""A stand-in for somebody's MCP server: the `mcp` package's own server, over Streamable HTTP.

Its tools say by their hints what may be repeated, and keep to it. Effects are counted by the `tag` that the caller
chooses; see `control`.
"""

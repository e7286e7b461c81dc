"""The built-in agent loop: one OpenAI chat completion in, model and tool calls through the sidecar out.

It keeps nothing between requests and decides nothing by clock or chance: the same request leads to the same calls. So
the sidecar may run it again at any time, and answers the calls that it has seen before from the journal.
"""

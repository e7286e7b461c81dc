"""The agent's tools: which functions the model may call, and the calls themselves."""

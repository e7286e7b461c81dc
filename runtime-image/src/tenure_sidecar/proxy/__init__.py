"""The model proxy: the agent container's only way to the model."""

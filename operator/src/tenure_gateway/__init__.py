"""The front door: an OpenAI-compatible API to all agents of a cluster. Stateless, any number of replicas."""

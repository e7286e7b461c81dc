"""The operator: watches agents, sessions and policies, and makes the cluster agree with them."""

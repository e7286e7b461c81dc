"""A turn from its record to its end: what the agent asks for, what is settled, what listeners are told."""

"""`kubectl tenure`: converse with agents, and put their sessions to sleep, wake, fork and carry them."""

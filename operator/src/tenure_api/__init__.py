"""The contract of Tenure: custom resources, conditions, names, and the messages that our processes exchange."""

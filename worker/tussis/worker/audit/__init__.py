"""The audit: what the model answers for recordings under several profiles, and which rule changes an answer."""

"""Looks at what the host and the pools hold as a start of the daemon would, and changes nothing."""

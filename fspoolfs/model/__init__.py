"""What a pool and an item are: definitions (desired), infos (observed), states, documents.

This package performs no input or output and knows neither FUSE nor storage.
"""

"""Storage behind two contracts: sources attach a pool's root, file systems make items on it."""

"""The host: paths, files, mounts, processes. Knows errno and system calls, nothing of pools."""

"""The kernel's control groups: where they are mounted, and the files of both versions."""

"""The crash contract, proved on the real daemon and real storage by killing it everywhere.

Each operation is run once with every system call that changes storage written down, and then again
from the same beginning for each of these calls, the daemon killed just before it. What the next
daemon shows, and what then lies in the real directories, must be the state before the operation or
the state after it. The daemon is started, used and looked at as anyone does it; nothing of the
program is imported.
"""

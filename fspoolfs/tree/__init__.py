"""The control tree: which directories and files there are, what they show and what they take.

Nodes hold an identity and no state. Knows neither inodes nor errno numbers of FUSE; `fspoolfs.ops`
turns it into a file system, and something else could serve it otherwise.
"""

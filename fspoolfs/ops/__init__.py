"""The FUSE protocol: inode numbers, handles, attributes, errno. A handler is a few lines.

The only package that knows pyfuse3. What a request means is decided in `fspoolfs.tree` and below.
"""

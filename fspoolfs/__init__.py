"""fspoolfs: file-system pools as a control tree of small text files, served over FUSE."""

__version__ = "0.1.0"

"""A virtual machine for one command: another kernel, the same files.

qemu boots Debian's kernel without hardware virtualisation. The guest's root is this machine's, seen
read-only through virtiofs, with a layer in the guest's memory above it: the same paths, programs and
virtual environment, and nothing that is done there is left here. The guest has no disk and no
network. Nothing of fspoolfs is imported; what is tested is up to the command.
"""

"""The engines of network pools, one file each; `engine` is the contract that they keep."""

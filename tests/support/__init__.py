"""What the tests share: running programs and daemons, and the rules that a whole test run keeps.

Nothing here knows the inside of `fspoolfs`; it is driven as its users drive it.
"""

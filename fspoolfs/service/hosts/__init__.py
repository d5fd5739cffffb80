"""Pools that are active on several hosts at once, each with its own daemon.

Whoever changes something has the pool's lock (`lock`), and with it the journal, which all hosts
share: so all changes of a pool are in one order, and whoever gets the lock finishes what a host has
left that died in its turn (`turns`). The others read along in the journal and take in what it says
(`feed`). Each host says which items it uses, for as long as it lives (`presence`).
"""

"""What fspoolfs costs, beside what the parts that it is made of cost and what its peers cost.

Everything that a row compares is measured in one run and in turns, because a shared machine is
noisy: a ratio of two medians taken side by side says more than either of them. Nothing in here is
part of the program that is measured, and nothing of that program is imported: it is used through
its control tree, as anyone uses it.
"""

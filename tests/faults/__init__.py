"""Kinds of broken and of unusual feature files, and what must come of each.

sheet   a good file, what must happen once it is broken, and the check of it
cells   one cell is wrong, or is written in an unusual way
files   the file as a whole, its header, a second file that does not fit
lines   ragged rows, cut files, quotes, bytes and line ends
rows    rows that contradict each other, faults that hide others, files of several blocks

Beside them: `paths`, names that lead elsewhere; `models`, damaged model files; `strings`, texts
that some reader of an output might run.
"""

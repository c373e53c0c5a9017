"""Keys: a similarity and a row as one int64, so that sorting keys ranks rows.

The similarity, in steps, is in the high 32 bits, and ROW_MASK minus the row in the low ones. A larger key is
nearer; of equally similar rows, the lower one is.
"""

NO_KEY = -(1 << 62)  # the key of a free entry in a list of neighbours
ROW_MASK = 2**32 - 1  # the low bits of a key, which hold the row, counted down from here

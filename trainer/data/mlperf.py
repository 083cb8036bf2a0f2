"""What MLPerf's DLRM-DCNv2 benchmark fixes about its data.

Source: MLCommons training, recommendation_v2/torchrec_dlrm (rounds v3.0 to v6.0).
"""

from __future__ import annotations

MAX_TABLE_ROWS = 40_000_000

# Ids in the bag of each of C1..C26; the first one is the real one.
MULTI_HOT_SIZES = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)

# Rows of each table: the number of values over all 24 days, at most MAX_TABLE_ROWS.
TABLE_ROWS = (
    (40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10)
    + (2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36)
)  # fmt: skip

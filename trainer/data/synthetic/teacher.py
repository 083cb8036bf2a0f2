"""The planted teacher: rows in the Criteo layout of which the true click probability is known.

Everything about row i is a function of (seed, i) alone, through counter-based hashing, so any rows can be made in any
order: as a stream and as files. The logit is a bias, a weight for every categorical value, dot products of hidden
vectors for a few pairs of features, and non-linear terms of the numerics; the label is a coin thrown with its sigmoid.
Most of the signal lies in frequent values and small tables, some in the tail. No learner beats `ceiling`, save by luck.

Legend: N rows, K values of a feature.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from configs.errors import ConfigError
from trainer.data.criteo import NUM_DENSE, NUM_SPARSE, signed_log1p
from trainer.data.manifest import FIRST_VALUE_ID, MISSING_ID
from trainer.data.mixing import mix
from trainer.data.synthetic.teacher_tables import LARGE_TABLE, MOST_VALUES, TeacherTables, exponent, kaggle_tables
from trainer.metrics.exact import BinaryMetrics, metrics_of_logits

_VECTOR_DIM = 4

BASE_RATE = 0.25
# Standard deviations of the logit's three parts over the rows; together they put the best possible AUC near 0.82.
_FIRST_ORDER_STD = 0.90
_PAIR_STD = 0.90
_NUMERIC_STD = 0.85

_CHUNK_ROWS = 8_192  # temporary arrays of this length stay in the cache
_CALIBRATION_ROWS = 32_768
_FIRST_CALIBRATION_ROW = 1 << 62  # far beyond every row that is ever made

# Streams of the hash: one for each thing that is drawn.
_DENSE_STREAM, _SPARSE_STREAM, _LABEL_STREAM, _WEIGHT_STREAM, _VECTOR_STREAM, _TEXT_STREAM, _SHAPE_STREAM = (
    1_000 * number for number in range(1, 8)
)
_GOLDEN = 0x9E3779B97F4A7C15
_MASK_64 = (1 << 64) - 1


def _hash(seed: int, stream: int, counters: np.ndarray) -> np.ndarray:
    """uint64 of the counters' shape: element `counter` of the stream's splitmix64 sequence."""
    start = np.array([(seed * _GOLDEN + stream) & _MASK_64], np.uint64)
    start = mix(mix(start) + np.uint64(stream))
    return mix(counters.astype(np.uint64) * np.uint64(_GOLDEN) + start)


def _uniform(hashed: np.ndarray) -> np.ndarray:
    """Float64 in (0, 1) from the upper 53 bits."""
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54


@dataclass(frozen=True, kw_only=True)
class TeacherRows:
    """Generated rows."""

    dense_raw: np.ndarray  # int64 [N, 13]; 0 where missing
    dense_missing: np.ndarray  # bool [N, 13]
    sparse_index: np.ndarray  # int32 [N, 26]: 0 .. K-1, -1 missing; 0 is the most frequent where nothing is renewed
    logit: np.ndarray  # float64 [N], of the true probability
    label: np.ndarray  # int32 [N]

    @property
    def dense(self) -> np.ndarray:
        """The numerics as the preparation writes them: float32 [N, 13]."""
        return signed_log1p(self.dense_raw, self.dense_missing)

    @property
    def ids(self) -> np.ndarray:
        """Ids int32 [N, 26] as a preparation that keeps every value in order of frequency would give them."""
        return np.where(self.sparse_index < 0, MISSING_ID, self.sparse_index + FIRST_VALUE_ID).astype(np.int32)


@dataclass(frozen=True)
class _Calibration:
    dense_mean: np.ndarray  # [13]
    dense_std: np.ndarray  # [13]
    scales: tuple[float, float, float]
    bias: float


@dataclass(frozen=True)
class Teacher:
    """The generator of a seed.

    Attributes:
        seed: decides all that is drawn.
        max_table_rows: the number of values of the largest feature.
        tables: the features' values; None: those of the Kaggle data, cut at `max_table_rows`.
        label_rate: the share of clicks, but for the noise of the days.
    """

    seed: int
    max_table_rows: int
    tables: TeacherTables | None = None
    label_rate: float = BASE_RATE

    def __post_init__(self) -> None:
        if self.max_table_rows < 1 or self.max_table_rows > MOST_VALUES:
            raise ConfigError(f"max_table_rows: {self.max_table_rows} must be from 1 to {MOST_VALUES:,}")
        if not 0.0 < self.label_rate < 1.0:
            raise ConfigError(f"label_rate: {self.label_rate} must be between 0 and 1")

    @functools.cached_property
    def value_tables(self) -> TeacherTables:
        """The values of C1..C26."""
        return self.tables or kaggle_tables(self.max_table_rows)

    @functools.cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """K of each of C1..C26: values are numbered below it."""
        return tuple(self.value_tables.total(feature) for feature in range(NUM_SPARSE))

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table: the values, and the ids for missing and rare."""
        return tuple(FIRST_VALUE_ID + size for size in self.cardinalities)

    def rows(self, row_ids: np.ndarray) -> TeacherRows:
        """Makes the rows of these ids, int64 [N], not negative, in any order."""
        row_ids = np.asarray(row_ids, np.int64)
        num_rows = len(row_ids)
        rows = TeacherRows(
            dense_raw=np.empty((NUM_DENSE, num_rows), np.int64).T,
            dense_missing=np.empty((NUM_DENSE, num_rows), bool).T,
            sparse_index=np.empty((NUM_SPARSE, num_rows), np.int32).T,
            logit=np.empty(num_rows, np.float64),
            label=np.empty(num_rows, np.int32),
        )
        for start in range(0, num_rows, _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            dense_raw, dense_missing = self._dense(row_ids[chunk])
            slots = self._slots(row_ids[chunk])
            index = self._values(slots, row_ids[chunk])
            logit = self._logit(dense_raw, index, slots)
            coin = _uniform(_hash(self.seed, _LABEL_STREAM, row_ids[chunk]))
            rows.dense_raw[chunk], rows.dense_missing[chunk] = dense_raw.T, dense_missing.T
            rows.sparse_index[chunk] = index.T
            rows.logit[chunk] = logit
            rows.label[chunk] = coin < 1.0 / (1.0 + np.exp(-logit))
        return rows

    def hashes(self, feature: int, index: np.ndarray) -> np.ndarray:
        """The uint32 values of a feature (0 = C1) for indices in 0..K-1; two indices never share one."""
        keys = _hash(self.seed, _TEXT_STREAM + feature, np.arange(2)).astype(np.uint32)
        # Both steps are one-to-one on 32 bits: xor, and the finaliser of MurmurHash3.
        mixed = mix(index.astype(np.uint32) ^ keys[0])
        return mix(mixed ^ keys[1])

    def ceiling(self, row_ids: np.ndarray) -> BinaryMetrics:
        """What the true probability scores on the labels of these rows: the best that any model can do."""
        rows = self.rows(row_ids)
        return metrics_of_logits(rows.label, rows.logit)

    def _dense(self, row_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numerics int64 [13, N] and where they are missing."""
        raw = np.empty((NUM_DENSE, len(row_ids)), np.int64)
        missing = np.empty((NUM_DENSE, len(row_ids)), bool)
        for feature in range(NUM_DENSE):
            rate, spread, centre = self._shapes[feature]
            u = _uniform(_hash(self.seed, _DENSE_STREAM + feature, row_ids))
            missing[feature] = u < rate
            u = np.maximum((u - rate) / (1 - rate), 2.0**-54)
            # Log-logistic counts: heavy tails, many zeros.
            count = np.exp(np.minimum(centre + spread * np.log(u / (1 - u)), 14.0))
            raw[feature] = count
            if feature % 4 == 1:
                raw[feature] -= 1
        raw[missing] = 0
        return raw, missing

    @functools.cached_property
    def _shapes(self) -> tuple[tuple[float, float, float], ...]:
        """Missing rate, spread and centre of each feature's distribution: numerics first, then categoricals."""
        shapes = []
        for feature in range(NUM_DENSE + NUM_SPARSE):
            u = _uniform(_hash(self.seed, _SHAPE_STREAM + feature, np.arange(3)))
            if feature < NUM_DENSE:
                shapes.append((0.0 if feature == 1 else 0.4 * u[0] ** 2, 0.5 + 0.5 * u[1], 3.0 * u[2]))
            else:  # every third one is never missing
                power = exponent(self.value_tables.sizes[feature - NUM_DENSE], float(u[1]), self.value_tables.skew)
                shapes.append((0.0 if feature % 3 == 0 else 0.3 * u[0] ** 2, power, 0.0))
        return tuple(shapes)

    def _slots(self, row_ids: np.ndarray) -> np.ndarray:
        """Places in the order of frequency, int32 [26, N]: a power law cut off, by its inverse distribution."""
        index = np.empty((NUM_SPARSE, len(row_ids)), np.int32)
        for feature, size in enumerate(self.value_tables.sizes):
            rate, exponent, _ = self._shapes[NUM_DENSE + feature]
            u = _uniform(_hash(self.seed, _SPARSE_STREAM + feature, row_ids))
            missing = u < rate
            u = (u - rate) / (1 - rate)
            # The integral of x^-exponent from 1 to size + 1, inverted; the exponent is never exactly 1.
            power = 1.0 - exponent
            place = (1.0 + np.maximum(u, 0.0) * ((size + 1.0) ** power - 1.0)) ** (1.0 / power)
            index[feature] = np.minimum(place.astype(np.int64) - 1, size - 1)
            index[feature][missing] = -1
        return index

    def _values(self, slots: np.ndarray, row_ids: np.ndarray) -> np.ndarray:
        """Value indices int32 [26, N]."""
        if not self.value_tables.rounds:
            return slots
        return np.stack([self.value_tables.values(feature, slots[feature], row_ids) for feature in range(NUM_SPARSE)])

    def _logit(self, dense_raw: np.ndarray, index: np.ndarray, slots: np.ndarray) -> np.ndarray:
        known = self._calibration
        first_order, numeric, pair = known.scales
        logit = known.bias + first_order * self._first_order(index, slots) + pair * self._pairs(index)
        logit += numeric * self._numeric(_standardised(dense_raw, known.dense_mean, known.dense_std))
        return logit

    def _first_order(self, index: np.ndarray, slots: np.ndarray) -> np.ndarray:
        total = np.zeros(index.shape[1])
        for feature, size in enumerate(self.value_tables.sizes):
            position = slots[feature].astype(np.int64) + 1
            value = index[feature].astype(np.int64) + 1
            weight = _uniform(_hash(self.seed, _WEIGHT_STREAM + feature, value)) - 0.5
            # Frequent values weigh most; the far tail keeps a quarter of it.
            weight *= 0.25 + 0.75 * 32.0 / (32.0 + position)
            total += weight * (1.0 if size <= LARGE_TABLE else 0.35)
        return total

    def _pairs(self, index: np.ndarray) -> np.ndarray:
        total = np.zeros(index.shape[1])
        vectors = {
            feature: self._vectors(feature, index[feature]) for pair in self.value_tables.pairs for feature in pair
        }
        for left, right in self.value_tables.pairs:
            total += (vectors[left] * vectors[right]).sum(axis=0)
        return total

    def _vectors(self, feature: int, index: np.ndarray) -> np.ndarray:
        """Hidden vectors float64 [4, N] in (-1, 1): the four 16-bit quarters of one hash."""
        hashed = _hash(self.seed, _VECTOR_STREAM + feature, index.astype(np.int64) + 1)
        shifts = np.arange(0, 64, 16, dtype=np.uint64)[:, None]
        quarters = ((hashed >> shifts) & np.uint64(0xFFFF)).astype(np.float64)
        return (quarters + 0.5) / 32_768.0 - 1.0

    def _numeric(self, z: np.ndarray) -> np.ndarray:
        """Terms of the standardised numerics [13, N]: straight, saturating, humped, wavy, and two products."""
        signs = np.where(_uniform(_hash(self.seed, _SHAPE_STREAM + 100, np.arange(8))) < 0.5, -1.0, 1.0)
        total: np.ndarray = (
            signs[0] * 0.6 * z[0]
            + signs[1] * 0.5 * np.tanh(2 * z[2])
            + signs[2] * 1.2 * np.exp(-2 * z[4] ** 2)
            + signs[3] * 0.6 * np.sin(2.5 * z[5])
            + signs[4] * 0.6 * np.abs(z[6])
            + signs[5] * 0.5 * z[7] * z[8]
            + signs[6] * 0.5 * np.tanh(z[10]) * np.tanh(2 * z[11])
            + signs[7] * 0.3 * z[12]
        )
        return total

    @functools.cached_property
    def _calibration(self) -> _Calibration:
        """Scales and bias that give every seed and size the same base rate and about the same ceiling."""
        row_ids = np.arange(_FIRST_CALIBRATION_ROW, _FIRST_CALIBRATION_ROW + _CALIBRATION_ROWS)
        dense_raw, _ = self._dense(row_ids)
        slots = self._slots(row_ids)
        index = self._values(slots, np.zeros_like(row_ids))  # as on the first day
        logs = _logs(dense_raw)
        mean, std = logs.mean(axis=1), logs.std(axis=1)
        parts = (
            self._first_order(index, slots),
            self._numeric(_standardised(dense_raw, mean, std)),
            self._pairs(index),
        )
        targets = (_FIRST_ORDER_STD, _NUMERIC_STD, _PAIR_STD)
        scales = tuple(target / max(float(part.std()), 1e-9) for target, part in zip(targets, parts, strict=True))
        centred = sum(scale * part for scale, part in zip(scales, parts, strict=True))
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            rate = float(np.mean(1.0 / (1.0 + np.exp(-(middle + centred)))))
            low, high = (low, middle) if rate > self.label_rate else (middle, high)
        return _Calibration(mean, std, (scales[0], scales[1], scales[2]), low)


def _logs(dense_raw: np.ndarray) -> np.ndarray:
    wide = dense_raw.astype(np.float64)
    return np.asarray(np.sign(wide) * np.log1p(np.abs(wide)))


def _standardised(dense_raw: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """The transformed numerics [13, N] with mean 0 and deviation 1, cut at 3; missing is 0, as models see it."""
    z: np.ndarray = np.clip((_logs(dense_raw) - mean[:, None]) / std[:, None], -3.0, 3.0)
    return z

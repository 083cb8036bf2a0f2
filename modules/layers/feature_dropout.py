"""Feature dropout: in training a member does without some features of each row, so that members come to differ."""

from __future__ import annotations

from modules.contracts import MemberInput
from modules.layers.dropout import Dropout


class FeatureDropout(Dropout):
    """Zeroes whole features row by row in training and scales the rest; identity in evaluation.

    An id feature goes with its embedding and its first-order weight, a numeric feature with its value; each is hidden
    with the probability by itself. The mask is a function of the seed last given to `reseed`.

    Args:
        probability: In [0, 1).
    """

    def forward(self, inputs: MemberInput) -> MemberInput:  # type: ignore[override]
        """Same shapes out as in."""
        if not self.training or self.probability == 0.0:
            return inputs
        num_dense, num_features = inputs.dense_BN.shape[1], inputs.embedded_BFD.shape[1]
        keep = self._keep((len(inputs.dense_BN), num_dense + num_features), device=inputs.dense_BN.device)
        dense_keep_BN, id_keep_BF = keep.split([num_dense, num_features], dim=1)
        first_order_BF = inputs.first_order_BF
        return MemberInput(
            dense_BN=self._scaled(inputs.dense_BN, dense_keep_BN),
            embedded_BFD=self._scaled(inputs.embedded_BFD, id_keep_BF[:, :, None]),
            first_order_BF=None if first_order_BF is None else self._scaled(first_order_BF, id_keep_BF),
        )

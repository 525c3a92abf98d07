"""ESIM, the enhanced sequential inference model: two texts aligned word by word and compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretune.layers.bidirectional import BiLSTM, attended
from pretune.layers.dropout import locked_dropout
from pretune.layers.pooling import max_pool, mean_pool
from pretune.tasks.pairs import rows_by_side
from pretune.tensors.batch import Batch

ESIM_DROPOUT = 0.5


class ESIM(nn.Module):
    """Token vectors of two texts -> what the pair is classified by; section 3 of Chen et al. (2017).

        a = biLSTM(premise), b = biLSTM(hypothesis)    by the same weights
        a~_i = sum_j softmax_j(a_i · b_j) b_j          and b~ from a, eq. 11 to 13
        m = relu(W [a; a~; a - a~; a * a~] + u)        eq. 14
        v_a = biLSTM(m_a), v_b = biLSTM(m_b)           by the same weights
        [mean v_a; max v_a; mean v_b; max v_b]         eq. 18 to 20

    What a biLSTM reads loses the same features at every token to dropout. The hidden layer above is relu, as
    in the model that ELMo was added to; Chen et al. have tanh. Its first weights are that model's, too.
    """

    def __init__(self, width: int, hidden: int, dropout: float, reads: bool) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout
        self.encode = BiLSTM(width, hidden) if reads else None
        self.project = nn.Linear(4 * (2 * hidden if reads else width), hidden)
        self.compose = BiLSTM(hidden, hidden)
        self.width = 8 * hidden
        self.apply(drawn)

    def layers(self, outputs: int) -> list[nn.Module]:
        """A hidden layer and the output."""
        p, hidden = self.dropout, nn.Linear(self.width, self.hidden)
        found = [nn.Dropout(p), hidden, nn.ReLU(), nn.Dropout(p), nn.Linear(self.hidden, outputs)]
        return [layer.apply(drawn) for layer in found]

    def forward(self, top: Tensor, batch: Batch) -> Tensor:  # (N, T, D) -> (B, 8H)
        order = rows_by_side(batch).flatten()  # (2B,) the first texts, then the second ones
        x, mask = top[order], batch.mask[order]
        if self.encode is not None:
            x = self.encode(locked_dropout(x, self.dropout, self.training), mask)  # (2B, T, 2H)
        other = torch.cat(x.chunk(2)[::-1])
        found = attended(x, other, torch.cat(mask.chunk(2)[::-1]))
        m = self.project(torch.cat((x, found, x - found, x * found), -1)).relu()  # (2B, T, H)
        v = self.compose(locked_dropout(m, self.dropout, self.training), mask)  # (2B, T, 2H)
        pooled = torch.cat((mean_pool(v, mask), max_pool(v, mask)), -1)  # (2B, 4H)
        return torch.cat(pooled.chunk(2), -1)


def drawn(module: nn.Module) -> None:
    """First weights: Xavier's uniform, of recurrent matrices orthogonal; biases 0, forget gates 1."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.LSTM):
        for name, weight in module.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(weight)
            else:
                nn.init.zeros_(weight)
            if name.startswith("bias_hh"):
                nn.init.ones_(weight.detach()[module.hidden_size : 2 * module.hidden_size])

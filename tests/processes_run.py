"""One of the processes that torchrun starts: `processes_run.py FOLDER` leaves its replicas in FOLDER."""

from __future__ import annotations

import os
import sys

import torch

from pretune.training.checkpoints import State
from pretune.training.loop import fit
from pretune.training.sources import own_rank, own_world
from tiny_training import TinySource, gradual, loss_of, quietly, tiny_model, weights_of
from transformer_tasks import JOINT, STILL, bert, gpt, still, trained

assert os.environ["WORLD_SIZE"] == "2"
rank = own_rank()
source = TinySource(rank=rank, world=own_world())
ends = []
end_stage = State.end_stage


def look(state: State) -> None:
    ends.append(weights_of(model))
    end_stage(state)


State.end_stage = look  # type: ignore[method-assign]
model = tiny_model(seed=rank)
fitted = fit(model, gradual(model), source, quietly(accumulate=2), loss_of, "loss", False)

State.end_stage = end_stage  # type: ignore[method-assign]
plain = tiny_model(dropout=0.0)
plain.alpha = plain.beta = 0.0
fit(plain, gradual(plain), source, quietly(accumulate=2))

joint = {}
for name, encoder in (("gpt", still(gpt)), ("bert", still(bert))):
    beside, told = trained(JOINT, encoder, STILL)
    joint[name] = {"weights": weights_of(beside), "losses": [entry["losses"] for entry in told.history]}

done = {"stages": ends, "losses": [entry["loss"] for entry in fitted.history], "tokens": fitted.tokens}
done |= {"best": fitted.best, "plain": weights_of(plain), "joint": joint}
torch.save(done, f"{sys.argv[1]}/{rank}.pt")

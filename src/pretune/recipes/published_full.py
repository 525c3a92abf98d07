"""Full fine-tuning as published, by name: GPT's, BERT's, and what few samples need."""

from __future__ import annotations

from dataclasses import replace

from pretune.recipes.full import Full

# Radford et al. (2018), section 4.1; where the text is silent (clip, Adam), the release's train.py.
GPT_RECIPE = Full(
    lr=6.25e-5,
    epochs=3,
    batch_size=32,
    rate_schedule="openai_linear",
    warmup=0.002,
    optimizer="openai",
    auxiliary=0.5,
)

# Devlin et al. (2019), section 4.1 (batch 32, 3 epochs; the rate is the best of 5, 4, 3 and 2e-5 on held-out
# data) and appendix A.3; where the text is silent, the release's run_classifier.py, whose rate is 5e-5.
BERT_RECIPE = Full(
    lr=5e-5,
    epochs=3,
    batch_size=32,
    rate_schedule="bert_linear",
    warmup=0.1,
    optimizer="bert",
)

# For BERT-base on some thousand samples or fewer: Mosbach et al. (2021), section 7 (corrected bias, 2e-5, 20
# epochs in batches of 16, climb and descent in lines), with one block and the pooler drawn anew (Zhang et
# al. 2021, section 5), and no fewer steps than 20 epochs of a thousand samples have.
FEW_SAMPLE = Full(
    lr=2e-5,
    epochs=20,
    least_steps=1250,
    batch_size=16,
    warmup=0.1,
    optimizer="bert",
    bias_correction=True,
    reinitialize_top=1,
)

# For encoders much smaller than the papers', which learn faster, on hundreds of labels, which are few steps a
# pass: what the methods do where no recipe is named. The rate is the highest of those for Google's small
# BERTs (3e-5 to 3e-4), about the papers' in proportion to a width of 128 to 256; the steps are those of
# the papers' 3 epochs on three thousand samples.
GPT_FEW_LABELS = replace(GPT_RECIPE, lr=3e-4, epochs=10, least_steps=300, batch_size=16, warmup=0.1)
BERT_FEW_LABELS = replace(
    BERT_RECIPE,
    lr=3e-4,
    epochs=10,
    least_steps=300,
    batch_size=16,
    rate_schedule="warmup_linear",
    bias_correction=True,
)

# Recipe -> the settings that its name stands for, which cannot be changed under that name.
FULL: dict[str, tuple[Full, frozenset[str]]] = {
    "full-gpt": (GPT_RECIPE, frozenset({"optimizer", "rate_schedule", "auxiliary"})),
    "full-gpt-no-auxiliary": (
        replace(GPT_RECIPE, auxiliary=0.0),
        frozenset({"optimizer", "rate_schedule", "auxiliary"}),
    ),
    "full-gpt-few-labels": (GPT_FEW_LABELS, frozenset({"optimizer"})),
    "full-bert": (BERT_RECIPE, frozenset({"optimizer", "rate_schedule"})),
    "full-bert-few-labels": (BERT_FEW_LABELS, frozenset({"optimizer"})),
    "full-few-sample": (FEW_SAMPLE, frozenset({"bias_correction"})),
}

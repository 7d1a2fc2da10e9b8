"""Pretrain ``builtin:tiny-opt`` from nothing and write it as the package's asset.

    OMP_NUM_THREADS=1 python scripts/pretrain_tiny_opt.py

One seed, one thread, no download: the corpus comes from ``everyday_english.py`` beside this file. The
default takes about five minutes on one free core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from everyday_english import documents

ASSET = Path(__file__).parents[1] / "src" / "airlora" / "workload" / "assets" / "tiny-opt"
PAD, BOS, EOS = "<pad>", "<s>", "</s>"
CONTEXT_TOKENS = 128
HELD_OUT_SEED = 10_000


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a beginning-of-text token in front of every text, as OPT's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
            ),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=CONTEXT_TOKENS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def blocks(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """Documents as ``<s> … </s>``, end to end, cut into blocks: (blocks, CONTEXT_TOKENS) int64."""
    encoded = tokenizer.backend_tokenizer.encode_batch(texts)
    stream = np.concatenate([[*item.ids, tokenizer.eos_token_id] for item in encoded])
    count = len(stream) // CONTEXT_TOKENS
    return torch.from_numpy(stream[: count * CONTEXT_TOKENS].reshape(count, CONTEXT_TOKENS).astype(np.int64))


def new_model(tokenizer: PreTrainedTokenizerFast, hidden: int, ffn: int, layers: int, heads: int) -> OPTForCausalLM:
    """An untrained OPT of the given widths."""
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        word_embed_proj_dim=hidden,
        ffn_dim=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT_TOKENS,
        do_layer_norm_before=True,
        dropout=0.0,
        attention_dropout=0.0,
        layerdrop=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return OPTForCausalLM(config)


def rate_at(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine to a twentieth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def pretrain(model: OPTForCausalLM, data: torch.Tensor, steps: int, batch: int, peak: float, minutes: float) -> int:
    """AdamW over shuffled blocks; returns the steps done."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(data), generator=generator)
    start, total, at = time.monotonic(), 0.0, 0
    for step in range(steps):
        if at + batch > len(order):
            order, at = torch.randperm(len(data), generator=generator), 0
        rows = data[order[at : at + batch]]
        at += batch
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps, peak)
        loss = model(input_ids=rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        total += loss.item()
        if (step + 1) % 100 == 0:
            spent = time.monotonic() - start
            print(f"step {step + 1}/{steps}  loss {total / 100:.3f}  {spent:.0f} s", flush=True)
            total = 0.0
            if spent > 60 * minutes:
                raise SystemExit(f"{minutes} minutes are over at step {step + 1}; lower --steps")
    return steps


@torch.no_grad()
def held_out_nll(model: OPTForCausalLM, data: torch.Tensor) -> float:
    """Mean negative log-likelihood a token, in nats, over blocks of text never trained on."""
    model.eval()
    return float(np.mean([model(input_ids=rows, labels=rows).loss.item() for rows in data.split(16)]))


def write(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Configuration, fp16 weights (the tied output matrix once) and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone otherwise
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        # transformers before 5 reads torch_dtype, later ones dtype; fp32 is what it runs in
        values.pop("dtype", None)
        if name == "config.json":
            values["torch_dtype"] = "float32"
        else:  # the name that transformers before 5 knows, too
            values.pop("backend", None)
            values["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Parse the options, train, report the held-out loss, write the asset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ASSET)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16, help="blocks of 128 tokens a step")
    parser.add_argument("--documents", type=int, default=60_000)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--ffn", type=int, default=384)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--minutes", type=float, default=30.0, help="give up beyond this time")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts = list(itertools.islice(documents(seed=0), options.documents))
    held_out = list(itertools.islice(documents(seed=HELD_OUT_SEED), 1000))
    tokenizer = train_tokenizer(texts, options.vocabulary)
    data, check = blocks(tokenizer, texts), blocks(tokenizer, held_out)
    model = new_model(tokenizer, options.hidden, options.ffn, options.layers, options.heads)
    print(f"{len(tokenizer)} tokens, {data.numel():,} in the corpus, {model.num_parameters():,} parameters", flush=True)
    pretrain(model, data, options.steps, options.batch, options.lr, options.minutes)
    nll = held_out_nll(model, check)
    print(f"held-out NLL {nll:.3f} nats a token, perplexity {math.exp(nll):.2f} (uniform: {len(tokenizer)})")
    write(model, tokenizer, options.out)
    size = sum(path.stat().st_size for path in options.out.glob("*") if path.suffix != ".md")
    print(f"wrote {options.out}: {size:,} bytes")


if __name__ == "__main__":
    main()

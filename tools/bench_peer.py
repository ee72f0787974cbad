"""Times a translation in PyTorch, taking turns with ours on the same machine.

A minimal model of VAR-d16's shape with random weights, written for this comparison: VAR's convolutional tokenizer, a
joint transformer over both pictures with a cache of keys and values, ten scales. Two rows:

  a  the work as ControlVAR does it: four streams of guidance over both pictures, both pictures decoded
  b  our algorithm: one stream over both pictures, one over the target alone, the target decoded

Needs PyTorch and a built benchmark (`cargo bench --workspace --bench translation --no-run`):

  python tools/bench_peer.py PATH/TO/translation-BENCHMARK [--rounds 3] [--bf16]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
LATENT, VOCABULARY, CHANNELS, MULTIPLIERS = 32, 4096, 160, (1, 1, 2, 2, 4)
DEPTH, WIDTH = 16, 1024


def norm_silu(norm, x):
    return F.silu(norm(x), inplace=True)


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, inputs, 1e-6), nn.GroupNorm(32, outputs, 1e-6)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        h = self.conv1(norm_silu(self.norm1, x))
        return self.shortcut(x) + self.conv2(norm_silu(self.norm2, h))


class Attention2d(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, 1e-6)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        return x + self.out(mixed.reshape(batch, channels, height, width))


class Tokenizer(nn.Module):
    """Encoder and decoder; the quantizer's loop over scales is in `Quantizer`."""

    def __init__(self):
        super().__init__()
        widths = [CHANNELS * m for m in MULTIPLIERS]
        layers, width = [nn.Conv2d(3, CHANNELS, 3, padding=1)], CHANNELS
        for level, output in enumerate(widths):
            last = level + 1 == len(widths)
            for _ in range(2):
                layers.append(Residual(width, output))
                width = output
                if last:
                    layers.append(Attention2d(width))
            if not last:
                layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=2)]
        middle = lambda: [Residual(width, width), Attention2d(width), Residual(width, width)]
        layers += middle() + [nn.GroupNorm(32, width, 1e-6), nn.SiLU(), nn.Conv2d(width, LATENT, 3, padding=1)]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(LATENT, LATENT, 3, padding=1))
        layers = [nn.Conv2d(LATENT, LATENT, 3, padding=1), nn.Conv2d(LATENT, width, 3, padding=1)] + middle()
        for level in reversed(range(len(widths))):
            output = widths[level]
            for _ in range(3):
                layers.append(Residual(width, output))
                width = output
                if level + 1 == len(widths):
                    layers.append(Attention2d(width))
            if level > 0:
                layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
        layers += [nn.GroupNorm(32, width, 1e-6), nn.SiLU(), nn.Conv2d(width, 3, 3, padding=1)]
        self.decoder = nn.Sequential(*layers)


class Quantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebook = nn.Embedding(VOCABULARY, LATENT)
        self.phi = nn.ModuleList(nn.Conv2d(LATENT, LATENT, 3, padding=1) for _ in range(4))

    def accumulate(self, k, total, codes):
        side = SIDES[k]
        rows = self.codebook(codes).transpose(1, 2).reshape(-1, LATENT, side, side)
        up = F.interpolate(rows, size=SIDES[-1], mode="bicubic")
        return total + 0.5 * up + 0.5 * self.phi[k * 4 // len(SIDES)](up)

    def next_input(self, k, total):
        return F.interpolate(total, size=(SIDES[k], SIDES[k]), mode="area").flatten(2).transpose(1, 2)

    def encode(self, features):
        total, tokens = torch.zeros_like(features), []
        lengths = self.codebook.weight.square().sum(1)
        for k, side in enumerate(SIDES):
            rest = F.interpolate(features - total, size=(side, side), mode="area").flatten(2).transpose(1, 2)
            codes = (lengths - 2 * rest @ self.codebook.weight.T).argmin(-1)
            total = self.accumulate(k, total, codes)
            tokens.append(codes)
        return tokens


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x, condition, cache):
        if "vectors" not in cache:
            cache["vectors"] = self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, -1)
        gain1, gain2, scale1, scale2, shift1, shift2 = cache["vectors"]
        batch, tokens, _ = x.shape
        normed = F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale1) + shift1
        q, k, v = self.qkv(normed).reshape(batch, tokens, 3, DEPTH, -1).permute(2, 0, 3, 1, 4)
        if "keys" in cache:
            k, v = torch.cat((cache["keys"], k), 2), torch.cat((cache["values"], v), 2)
        cache["keys"], cache["values"] = k, v
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.25 / 8).transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = x + self.out(mixed) * gain1
        normed = F.layer_norm(x, (WIDTH,), eps=1e-6) * (1 + scale2) + shift2
        return x + self.down(F.gelu(self.up(normed), approximate="tanh")) * gain2


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Linear(LATENT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.head_modulation, self.head = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def step(self, x, condition, caches):
        for block, cache in zip(self.blocks, caches):
            x = block(x, condition, cache)
        return x

    def logits(self, hidden, condition):
        scale, shift = self.head_modulation(F.silu(condition)).unsqueeze(1).chunk(2, -1)
        return self.head(F.layer_norm(hidden, (WIDTH,), eps=1e-6) * (1 + scale) + shift)


def draw(logits):
    """Top-k and one draw, as both programs do for each token."""
    values, places = logits.float().topk(100, -1)
    chosen = torch.multinomial(values.softmax(-1).flatten(0, 1), 1).reshape(*values.shape[:-1], 1)
    return places.gather(-1, chosen).squeeze(-1)


def words(transformer, quantizer, k, total, condition):
    if k == 0:
        return condition.unsqueeze(1)
    return transformer.words(quantizer.next_input(k, total))


def generate_four(transformer, quantizer, known):
    """(a): four streams over both pictures; the known half is forced in each."""
    condition = torch.randn(4, WIDTH)
    caches = [{} for _ in range(DEPTH)]
    source = target = torch.zeros(1, LATENT, SIDES[-1], SIDES[-1])
    for k in range(len(SIDES)):
        count = SIDES[k] ** 2
        halves = [words(transformer, quantizer, k, total.expand(4, -1, -1, -1), condition) for total in (source, target)]
        hidden = transformer.step(torch.cat(halves, 1), condition, caches)
        one, two, three, four = transformer.logits(hidden, condition).chunk(4)
        guided = four + 2 * (one - two) + 2 * (two - three) + (three - four)
        codes = draw(guided[:, count:])
        source = quantizer.accumulate(k, source, known[k])
        target = quantizer.accumulate(k, target, codes)
    return [source, target]


def generate_ours(transformer, quantizer, known):
    """(b): one stream over both pictures, one over the target alone; logits of the target only."""
    here, nowhere = torch.randn(1, WIDTH), torch.randn(1, WIDTH)
    caches, free_caches = [{} for _ in range(DEPTH)], [{} for _ in range(DEPTH)]
    source = target = torch.zeros(1, LATENT, SIDES[-1], SIDES[-1])
    for k in range(len(SIDES)):
        count = SIDES[k] ** 2
        halves = [words(transformer, quantizer, k, total, here) for total in (source, target)]
        hidden = transformer.step(torch.cat(halves, 1), here, caches)
        free = transformer.step(words(transformer, quantizer, k, target, nowhere), nowhere, free_caches)
        guided = transformer.logits(hidden[:, count:], here)
        free = transformer.logits(free, nowhere)
        codes = draw(free + 2 * (guided - free))
        source = quantizer.accumulate(k, source, known[k])
        target = quantizer.accumulate(k, target, codes)
    return [target]


@torch.inference_mode()
def translate(model, row, bf16):
    tokenizer, quantizer, transformer = model
    picture = torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        start = time.perf_counter()
        tokens = quantizer.encode(tokenizer.encoder(picture).float())
        encoded = time.perf_counter()
        made = (generate_four if row == "a" else generate_ours)(transformer, quantizer, tokens)
        generated = time.perf_counter()
        for total in made:
            tokenizer.decoder(total)
        end = time.perf_counter()
    return {"encode": encoded - start, "generate": generated - encoded, "decode": end - generated, "whole": end - start}


class Ours:
    """Our benchmark, which makes one translation for each line it reads."""

    def __init__(self, program, precision):
        command = [program, "--bench", "d16", precision, "--serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"

    def translate(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built benchmark `translation`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="also bf16 autocast")
    arguments = parser.parse_args()
    torch.manual_seed(1)
    model = (Tokenizer().eval(), Quantizer().eval(), Transformer().eval())
    count = sum(p.numel() for part in model for p in part.parameters())
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {count / 1e6:.0f} M parameters")
    runs = {f"ours {precision}": Ours(arguments.program, precision).translate for precision in ("f32", "int8")}
    for row in "ab":
        for bf16 in [False, True] if arguments.bf16 else [False]:
            name = f"PyTorch ({row}) {'bf16' if bf16 else 'f32'}"
            runs[name] = lambda row=row, bf16=bf16: translate(model, row, bf16)
    times = {name: [] for name in runs}
    for round_number in range(arguments.rounds + 1):
        for name, run in runs.items():
            found = run()
            print(f"round {round_number}, {name}: {found['whole']:.1f} s", file=sys.stderr, flush=True)
            # The first round warms up.
            if round_number > 0:
                times[name].append(found)
    print(f"{'seconds, median of ' + str(arguments.rounds):24} {'encode':>9} {'generate':>9} {'decode':>9} {'whole':>9}")
    for name, found in times.items():
        medians = [statistics.median(each[part] for each in found) for part in ("encode", "generate", "decode", "whole")]
        print(f"{name:24} " + " ".join(f"{median:9.2f}" for median in medians))


if __name__ == "__main__":
    main()

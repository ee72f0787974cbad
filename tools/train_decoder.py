#!/usr/bin/env python3
"""The decoder of a tokenizer, trained further in PyTorch while encoder and codebook stay: for a GPU that is lent for minutes.

Tokens do not change, so a transformer over them needs no new training, and both can be trained at the same time. Maps
are held to absolute differences, edges and SSIM; photographs to absolute differences, a patch discriminator (hinge,
weighted by gradients as in VQGAN) and its features. A share of the codes is exchanged, so that the decoder learns to
smooth over a transformer's mistakes.

    python3 tools/train_decoder.py CONFIG TOKENIZER OUT --minutes 4    # CONFIG as for train_transformer.py
    python3 tools/train_decoder.py CONFIG TOKENIZER - --check          # quality of a tokenizer, to compare
"""

import argparse
import json
import math
import os
import time
import tomllib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from train_transformer import GroupNorm, Pairs, Tokenizer

SHAPE = {"fold": 2, "channels": 32, "multipliers": [1, 1, 2, 4], "residual_blocks": 2}


def conv(inputs, outputs, kernel=3):
    layer = nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2)
    nn.init.uniform_(layer.weight, -((kernel**2 * inputs) ** -0.5), (kernel**2 * inputs) ** -0.5)
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(inputs), GroupNorm(outputs)
        self.conv1, self.conv2 = conv(inputs, outputs), conv(outputs, outputs)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return (x if self.shortcut is None else self.shortcut(x)) + h


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.qkv, self.out = GroupNorm(width), conv(width, 3 * width, 1), conv(width, width, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.out(mixed.transpose(1, 2).reshape(b, c, h, w))


class Level(nn.Module):
    def __init__(self, inputs, outputs, blocks, attention, resample):
        super().__init__()
        self.blocks = nn.ModuleList(Residual(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.attentions = nn.ModuleList(Attention(outputs) for _ in range(blocks if attention else 0))
        self.resample = conv(outputs, outputs) if resample else None

    def forward(self, x):
        for i, block in enumerate(self.blocks):
            x = block(x)
            if len(self.attentions):
                x = self.attentions[i](x)
        return x if self.resample is None else self.resample(F.interpolate(x, scale_factor=2, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, width, attention):
        super().__init__()
        self.block1, self.block2 = Residual(width, width), Residual(width, width)
        self.attention = Attention(width) if attention else None

    def forward(self, x):
        x = self.block1(x)
        return self.block2(x if self.attention is None else self.attention(x))


class Decoder(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        widths = [shape["channels"] * m for m in shape["multipliers"]]
        last, attention = len(widths) - 1, config["attention"]
        self.conv_in = conv(config["latent_width"], widths[last])
        self.middle = Middle(widths[last], attention)
        blocks = shape["residual_blocks"] + 1
        # Numbered from the finest to the coarsest; run in reverse.
        self.levels = nn.ModuleList(
            Level(widths[min(i + 1, last)], widths[i], blocks, attention and i == last, i > 0) for i in range(last + 1)
        )
        self.norm_out = GroupNorm(widths[0])
        self.conv_out = conv(widths[0], 3 * shape["fold"] ** 2)
        if config["linear_path"]:
            nn.init.zeros_(self.conv_out.weight)

    def forward(self, x):
        x = self.middle(self.conv_in(x))
        for level in reversed(self.levels):
            x = level(x)
        return F.silu(self.norm_out(x))


class Back(nn.Module):
    """Everything after the quantizer, in the names of the model folder."""

    def __init__(self, config, shape):
        super().__init__()
        self.fold, self.stride = shape["fold"], config["fold"] * 2 ** (len(config["multipliers"]) - 1)
        latent = config["latent_width"]
        self.after_quantizer = conv(latent, latent)
        self.decoder = Decoder(config, shape)
        self.linear = nn.ModuleDict({"out": conv(latent, 3 * self.stride**2, 1)}) if config["linear_path"] else None

    def before_last(self, features):
        return self.decoder(self.after_quantizer(features))

    def last(self, hidden, features):
        picture = F.pixel_shuffle(self.decoder.conv_out(hidden), self.fold)
        return picture if self.linear is None else picture + F.pixel_shuffle(self.linear["out"](features), self.stride)

    def forward(self, features):
        return self.last(self.before_last(features), features)


class Discriminator(nn.Module):
    """Judges overlapping patches of photographs; also gives its hidden maps."""

    def __init__(self, width=64):
        super().__init__()
        norm = nn.utils.parametrizations.spectral_norm
        sizes = [(3, width, 2), (width, 2 * width, 2), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1), (4 * width, 1, 1)]
        self.layers = nn.ModuleList(norm(nn.Conv2d(i, o, 4, stride, 1)) for i, o, stride in sizes)

    def forward(self, x):
        hidden = []
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
            hidden.append(x)
        return self.layers[-1](x).float(), hidden


# --- Losses ---------------------------------------------------------------------------------------------------------


def gaussian(device):
    taps = torch.exp(-0.5 * ((torch.arange(11, device=device) - 5) / 1.5) ** 2)
    return taps / taps.sum()


def ssim(a, b, taps):
    """Mean SSIM of each picture, for pictures in [−1, 1]."""
    channels = a.shape[1]

    def blur(x):
        x = F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)

    a, b = (a.float() + 1) / 2, (b.float() + 1) / 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.mean((1, 2, 3))


def edges(a, b):
    d = a - b
    return (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()


def detail(x):
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()


@torch.no_grad()
def quality(tokenizer, back, pairs, side, taps):
    """PSNR, SSIM and detail of photographs and of maps."""
    rows = [[], []]
    for start in range(0, len(pairs.pictures), 16):
        indices = torch.arange(start, min(start + 16, len(pairs.pictures)), device=pairs.pictures.device)
        pictures = pairs.centred(indices, side)
        for m in (0, 1):
            seen = tokenizer.encode(tokenizer.features(pictures[:, m]), 0, None)[2]
            out = back(seen).clamp(-1, 1).float()
            error = ((out - pictures[:, m]) / 2).square().mean((1, 2, 3))
            for i in range(len(out)):
                rows[m].append([-10 * math.log10(float(error[i]) + 1e-12), float(ssim(out[i : i + 1], pictures[i : i + 1, m], taps)), float(detail(out[i]) / detail(pictures[i, m]).clamp(min=1e-4))])
    return [[round(float(v), 4) for v in np.mean(r, 0)] for r in rows]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("tokenizer")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--batch", type=int, default=32, help="pairs")
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--noise", type=float, default=0.04, help="share of codes exchanged, in half of the steps")
    parser.add_argument("--adversarial", type=float, default=0.5, help="0 for none")
    parser.add_argument("--adversarial-from", type=float, default=0.25, help="share of the time")
    parser.add_argument("--turn", type=float, default=0.3)
    parser.add_argument("--keep-every", type=float, default=40, metavar="SECONDS")
    args = parser.parse_args()
    config = tomllib.load(open(args.config, "rb"))
    began = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    tokenizer = Tokenizer(args.tokenizer, device)
    side, taps = tokenizer.config["picture_side"], gaussian(device)
    validation = Pairs(config["data"], config["validation"], device)
    own = {k: tokenizer.config[k] for k in ("fold", "channels", "multipliers", "residual_blocks")}
    shape = tokenizer.config.get("decoder", own if args.check else SHAPE)
    back = Back(tokenizer.config, shape).to(device)
    before = {k: v for k, v in tokenizer.w.items() if k in back.state_dict() and v.shape == back.state_dict()[k].shape}
    if args.check:
        back.load_state_dict(before)
        print("PSNR, SSIM and detail of photographs and of maps:", quality(tokenizer, back, validation, side, taps))
        return
    if shape == tokenizer.config.get("decoder"):
        back.load_state_dict(before)
    else:
        # Only what stands outside of the decoder means the same in another shape.
        back.load_state_dict({k: v for k, v in before.items() if not k.startswith("decoder.")}, strict=False)
    training = Pairs(config["data"], config["training"], device)
    count = sum(p.numel() for p in back.parameters()) / 1e6
    print(f"{count:.2f} M parameters, ready after {time.time() - began:.0f} s", flush=True)
    judge = Discriminator().to(device)
    optimiser = torch.optim.AdamW(back.parameters(), lr=args.rate, betas=(0.9, 0.99), weight_decay=0.01)
    judge_optimiser = torch.optim.Adam(judge.parameters(), lr=args.rate / 3, betas=(0.5, 0.9))
    average = {name: value.detach().clone() for name, value in back.state_dict().items()}
    averaged = Back(tokenizer.config, shape).to(device)
    generator = torch.Generator(device).manual_seed(1)
    end, started, kept, step = began + 60 * args.minutes, time.time(), time.time(), 0
    half = lambda: torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    while True:
        now = time.time()
        done = min((now - started) / (end - started), 1)
        rate = min((step + 1) / 100, 1) * (0.02 + 0.98 * 0.5 * (1 + math.cos(done * math.pi)))
        for group in optimiser.param_groups:
            group["lr"] = args.rate * rate
        indices = torch.randint(len(training.pictures), (args.batch,), device=device)
        with torch.no_grad():
            pictures = training.cut(indices, side, config["augment"], args.turn)[0]
            truth = torch.cat([pictures[:, 0], pictures[:, 1]])
            noise = args.noise if step % 2 else 0.0
            features = tokenizer.encode(tokenizer.features(truth), noise, generator)[2]
        with half():
            hidden = back.before_last(features)
            out = back.last(hidden, features).float()
        photo, chart = out.chunk(2)
        real, drawn = truth.chunk(2)
        loss = 4 * F.l1_loss(chart, drawn) + 2 * edges(chart, drawn) + (1 - ssim(chart, drawn, taps)).mean()
        ground = F.l1_loss(photo, real) + 0.25 * (1 - ssim(photo, real, taps)).mean()
        judging = args.adversarial > 0 and done >= args.adversarial_from
        report = {}
        if judging:
            judge.requires_grad_(False)
            with half():
                says, seen = judge(photo)
                with torch.no_grad():
                    _, wanted = judge(real)
            alike = sum(F.l1_loss(a.float(), b.float()) / b.float().abs().mean().clamp(min=1e-3) for a, b in zip(seen, wanted)) / len(seen)
            ground = ground + 0.3 * alike
            fooled = -says.mean()
            weight = back.decoder.conv_out.weight
            pull = torch.autograd.grad(ground, weight, retain_graph=True)[0].norm()
            push = torch.autograd.grad(fooled, weight, retain_graph=True)[0].norm()
            balance = (pull / (push + 1e-6)).clamp(0, 100)
            ramp = min((done - args.adversarial_from) / 0.1, 1)
            ground = ground + args.adversarial * ramp * balance * fooled
            report = {"alike": alike.detach(), "fooled": fooled.detach(), "balance": balance}
        loss = loss + ground
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(back.parameters(), 1.0)
        optimiser.step()
        if args.adversarial > 0 and done >= args.adversarial_from - 0.05:
            # The judge begins a little earlier, so that its first words mean something.
            judge.requires_grad_(True)
            with half():
                judged = F.relu(1 - judge(real)[0]).mean() + F.relu(1 + judge(photo.detach())[0]).mean()
            judge_optimiser.zero_grad(set_to_none=True)
            judged.backward()
            judge_optimiser.step()
            report["judge"] = judged.detach()
        step += 1
        decay = min(0.998, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(back.state_dict().values()), 1 - decay)
        last = time.time() >= end
        if last or time.time() - kept >= args.keep_every:
            kept = time.time()
            averaged.load_state_dict(average)
            line = {"step": step, "seconds": round(kept - began, 1), "loss": float(loss.detach()), "quality": quality(tokenizer, averaged, validation, side, taps)}
            line |= {k: round(float(v), 4) for k, v in report.items()}
            print(json.dumps(line), flush=True)
            save(tokenizer, average, shape, args)
        if last:
            break


def save(tokenizer, average, shape, args):
    os.makedirs(args.out, exist_ok=True)
    tensors = load_file(f"{args.tokenizer}/model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("decoder.") and k not in average}
    storage = next(iter(tensors.values())).dtype
    learnt = {k: v.detach().to(storage).cpu().contiguous() for k, v in average.items()}
    save_file(kept | learnt, f"{args.out}/model.safetensors.part")
    os.replace(f"{args.out}/model.safetensors.part", f"{args.out}/model.safetensors")
    json.dump(tokenizer.config | {"decoder": shape}, open(f"{args.out}/config.json", "w"), indent=2)


if __name__ == "__main__":
    main()

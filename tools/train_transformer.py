#!/usr/bin/env python3
"""The training of the transformer once more, in PyTorch, for a GPU that is lent for minutes.

Reads the same configuration as `earthmapper train transformer -c FILE` and a tokenizer folder, and writes
`model.safetensors` and `config.json` of a model folder. The network, the forcing, the mistakes and the loss are those
of crates/model and crates/lab/src/train; names and layouts of the weights too, so that the file is used as it is.
Differences: pictures are cut anew for every step on the GPU instead of being kept as tokens, photographs that are only
looked at may change their colours (`--jitter`), and pairs may be turned by any angle (`--turn`).

    python3 tools/train_transformer.py CONFIG OUT --minutes 8        # trains until the time is up
    python3 tools/train_transformer.py CONFIG OUT --check MODEL      # validation loss of a model, to compare
"""

import argparse
import json
import math
import os
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn


# --- The tokenizer: encoder and quantizer, frozen -------------------------------------------------------------------


class Tokenizer:
    def __init__(self, folder, device):
        self.config = json.load(open(f"{folder}/config.json"))
        self.w = {k: v.float().to(device) for k, v in load_file(f"{folder}/model.safetensors").items()}
        self.sides, self.depth = self.config["sides"], self.config["quantizer_depth"]
        self.codebook = self.w["quantizer.codebook"]
        side = self.sides[-1]
        self.down = [torch.tensor(area_weights(side, s), device=device) for s in self.sides]
        self.up = [torch.tensor(bicubic_weights(s, side), device=device) for s in self.sides]
        count, scales = self.config["phi_count"], len(self.sides)
        self.phi = [nearest_tick(k, scales, count) for k in range(scales)]

    def conv(self, name, x, stride=1, pad=None):
        weight = self.w[name + ".weight"]
        pad = (weight.shape[-1] - 1) // 2 if pad is None else pad
        return F.conv2d(x, weight, self.w[name + ".bias"], stride, pad)

    def norm(self, name, x):
        return F.group_norm(x, math.gcd(32, x.shape[1]), self.w[name + ".gamma"], self.w[name + ".beta"], 1e-6)

    def residual(self, name, x):
        h = self.conv(name + ".conv1", F.silu(self.norm(name + ".norm1", x)))
        h = self.conv(name + ".conv2", F.silu(self.norm(name + ".norm2", h)))
        return (self.conv(name + ".shortcut", x) if name + ".shortcut.weight" in self.w else x) + h

    def attention(self, name, x):
        b, c, h, w = x.shape
        q, k, v = self.conv(name + ".qkv", self.norm(name + ".norm", x)).reshape(b, 3 * c, h * w).chunk(3, 1)
        mixed = v @ (q.transpose(1, 2) @ k * c**-0.5).softmax(-1).transpose(1, 2)
        return x + self.conv(name + ".out", mixed.reshape(b, c, h, w))

    def features(self, pictures):
        fold, config = self.config["fold"], self.config
        x = self.conv("encoder.conv_in", fold_pixels(pictures, fold))
        last = len(config["multipliers"]) - 1
        for i in range(last + 1):
            for j in range(config["residual_blocks"]):
                x = self.residual(f"encoder.levels.{i}.blocks.{j}", x)
                if config["attention"] and i == last:
                    x = self.attention(f"encoder.levels.{i}.attentions.{j}", x)
            if i < last:
                x = self.conv(f"encoder.levels.{i}.resample", F.pad(x, (0, 1, 0, 1)), 2, 0)
        x = self.residual("encoder.middle.block1", x)
        if config["attention"]:
            x = self.attention("encoder.middle.attention", x)
        x = self.residual("encoder.middle.block2", x)
        x = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", x)))
        x = self.conv("before_quantizer", x)
        if config["linear_path"]:
            x = x + self.conv("linear.into", fold_pixels(pictures, fold * 2**last))
        return x

    def encode(self, features, share, generator):
        """Codes per scale `[batch, tokens, depth]`, then inputs of scales 1 … and the reconstruction when a share of
        positions goes wrong."""
        b, width = features.shape[:2]
        lengths = self.codebook.square().sum(1)
        reconstruction, codes, inputs = torch.zeros_like(features), [], []
        for k, side in enumerate(self.sides):
            rest = resize(features - reconstruction, self.down[k]).permute(0, 2, 3, 1).reshape(-1, width)
            found = []
            for _ in range(self.depth):
                code = (lengths - 2 * rest @ self.codebook.T).argmin(1)
                rest = rest - self.codebook[code]
                found.append(code)
            found = torch.stack(found, 1)
            codes.append(found.reshape(b, side * side, self.depth))
            taken = found
            if share > 0:
                other = torch.randint(len(found), (len(found),), device=found.device, generator=generator)
                wrong = torch.rand(len(found), 1, device=found.device, generator=generator) < share
                taken = torch.where(wrong, found[other], found)
            vectors = self.codebook[taken].sum(1).reshape(b, side, side, width).permute(0, 3, 1, 2)
            up = resize(vectors, self.up[k])
            ratio = self.config["phi_ratio"]
            reconstruction = reconstruction + (1 - ratio) * up + ratio * self.conv(f"quantizer.phi.{self.phi[k]}", up)
            if k + 1 < len(self.sides):
                inputs.append(resize(reconstruction, self.down[k + 1]).flatten(2).transpose(1, 2))
        return codes, inputs, reconstruction


def fold_pixels(x, fold):
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // fold, fold, w // fold, fold).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(b, c * fold * fold, h // fold, w // fold)


def area_weights(source, target):
    rows = np.zeros((target, source), np.float32)
    for i in range(target):
        start, end = i * source // target, -(-(i + 1) * source // target)
        rows[i, start:end] = 1 / (end - start)
    return rows


def bicubic_weights(source, target):
    a, rows = -0.75, np.zeros((target, source), np.float32)
    near = lambda x: ((a + 2) * x - (a + 3)) * x * x + 1
    far = lambda x: ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    for i in range(target):
        position = (i + 0.5) * source / target - 0.5
        base = math.floor(position)
        t = position - base
        for tap, weight in enumerate([far(t + 1), near(t), near(1 - t), far(2 - t)]):
            rows[i, min(max(base + tap - 1, 0), source - 1)] += weight
    return np.eye(target, dtype=np.float32) if source == target else rows


def nearest_tick(k, scales, count):
    start = (1 / 3 if count == 4 else 0.5) / count
    ticks = np.linspace(start, 1 - start, count)
    return int(np.argmin(np.abs(ticks - k / max(scales - 1, 1))))


def resize(x, rows):
    return rows @ x @ rows.T


# --- The transformer ------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Weights `[inputs, outputs]`, as in the model folder."""

    def __init__(self, inputs, outputs, deviation):
        super().__init__()
        self.weight = nn.Parameter(normal((inputs, outputs), deviation))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return F.linear(x, self.weight.T, self.bias)


def normal(shape, deviation):
    return nn.init.trunc_normal_(torch.empty(shape), 0, deviation, -2 * deviation, 2 * deviation)


class GroupNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return F.group_norm(x, math.gcd(32, x.shape[1]), self.gamma, self.beta, 1e-6)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(width), GroupNorm(width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)
        for conv in (self.conv1, self.conv2):
            nn.init.uniform_(conv.weight, -((9 * width) ** -0.5), (9 * width) ** -0.5)

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Guide(nn.Module):
    def __init__(self, latent, width, blocks):
        super().__init__()
        self.embed = Linear(latent, width, (3 * width) ** -0.5)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(blocks))

    def forward(self, features, down):
        x = self.embed(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x)
        return [resize(x, rows.to(x.dtype)).flatten(2).transpose(1, 2) for rows in down]


class Attention(nn.Module):
    def __init__(self, width, heads, depth):
        super().__init__()
        deviation = (3 * width) ** -0.5
        self.qkv, self.out = Linear(width, 3 * width, deviation), Linear(width, width, deviation / (2 * depth) ** 0.5)
        self.log_scale = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4)))
        self.heads = heads

    def forward(self, x, ends):
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q = (F.normalize(q.float(), dim=-1, eps=1e-12) * self.log_scale.clamp(max=math.log(100)).exp()).to(v.dtype)
        k = F.normalize(k.float(), dim=-1, eps=1e-12).to(v.dtype)
        mixed, start = [], 0
        for end in ends:
            mixed.append(F.scaled_dot_product_attention(q[:, :, start:end], k[:, :, :end], v[:, :, :end], scale=1.0))
            start = end
        return self.out(torch.cat(mixed, 2).transpose(1, 2).reshape(b, n, width))


class Block(nn.Module):
    def __init__(self, width, heads, depth, ratio):
        super().__init__()
        deviation = (3 * width) ** -0.5
        hidden = round(width * ratio)
        self.attention = Attention(width, heads, depth)
        self.up, self.down = Linear(width, hidden, deviation), Linear(hidden, width, deviation / (2 * depth) ** 0.5)
        self.offset = nn.Parameter(normal((1, 6 * width), width**-0.5))

    def forward(self, x, shared, ends, drop):
        gain1, gain2, scale1, scale2, shift1, shift2 = (shared + self.offset).unsqueeze(1).chunk(6, -1)
        x = x + dropped(self.attention(modulate(x, scale1, shift1), ends) * gain1, drop)
        return x + dropped(self.down(F.gelu(self.up(modulate(x, scale2, shift2)))) * gain2, drop)


def dropped(branch, probability):
    if probability <= 0:
        return branch
    kept = torch.rand(len(branch), 1, 1, device=branch.device) >= probability
    return branch * (kept / (1 - probability)).to(branch.dtype)


def modulate(x, scale, shift):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class DepthHead(nn.Module):
    def __init__(self, width, latent, depth):
        super().__init__()
        deviation = (3 * width) ** -0.5
        self.chosen, self.level = Linear(latent, width, latent**-0.5), nn.Parameter(normal((depth, width), deviation))
        self.up, self.down = Linear(width, 2 * width, deviation), Linear(2 * width, width, deviation)

    def forward(self, hidden, chosen, level):
        return hidden + self.down(F.gelu(self.up(hidden + self.chosen(chosen) + self.level[level])))


class GeoEmbedding(nn.Module):
    """Eq. 8. Places are `[batch, 3]`: longitude, latitude, metres a pixel; NaN where unknown."""

    def __init__(self, width, octaves):
        super().__init__()
        self.octaves = octaves
        self.place_in, self.place_out = Linear(4 * octaves, width, (4 * octaves) ** -0.5), Linear(width, width, width**-0.5)
        self.scale_in, self.scale_out = Linear(12, width, 12**-0.5), Linear(width, width, width**-0.5)
        self.nowhere = nn.Parameter(normal((1, width), width**-0.5))

    def forward(self, places, batch):
        if places is None:
            return self.nowhere.expand(batch, -1)
        known, sized = ~places[:, :2].isnan().any(1, keepdim=True), ~places[:, 2:].isnan()
        places = torch.where(places.isnan(), 1.0, places.double())
        # Whole turns are taken off in degrees, where they are exact.
        octaves = 2.0 ** torch.arange(self.octaves, device=places.device)
        angles = torch.stack([places[:, 1], places[:, 0] % 360], 1).unsqueeze(2) * octaves % 360 * (math.pi / 180)
        position = torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()
        angles = places[:, 2:].log2() / 16 * 2 * math.pi * 2.0 ** torch.arange(6, device=places.device)
        scale = torch.stack([angles.sin(), angles.cos()], -1).flatten(1).float()
        there = torch.where(known, self.place_out(F.silu(self.place_in(position))), self.nowhere)
        return there + self.scale_out(F.silu(self.scale_in(scale))) * (known & sized)


class Transformer(nn.Module):
    def __init__(self, config, tokenizer):
        super().__init__()
        expected = {"forcing": "aligned", "attention": "l2", "adaptive_norm": "shared", "activation": "gelu", "tied_head": True}
        wrong = {key: config.get(key) for key, value in expected.items() if config.get(key) != value}
        assert not wrong, f"not built here: {wrong}"
        width, depth, latent = config["width"], config["depth"], tokenizer.config["latent_width"]
        deviation = (3 * width) ** -0.5
        self.sides, self.down = tokenizer.sides, tokenizer.down
        total = sum(side * side for side in self.sides)
        self.drops = [config["drop_path"] * i / max(depth - 1, 1) for i in range(depth)]
        self.geo_embedding = GeoEmbedding(width, config.get("place_octaves", 17))
        self.word_embedding = Linear(latent, width, deviation)
        self.guides = nn.ModuleList(Guide(latent, width, config["guide_blocks"]) for _ in range(2))
        self.position = nn.Parameter(normal((total, width), deviation))
        self.start_position = nn.Parameter(normal((self.sides[0] ** 2, width), deviation))
        self.level = nn.Parameter(normal((len(self.sides), width), deviation))
        self.modality = nn.Parameter(normal((2, width), deviation))
        self.shared_modulation = Linear(width, 6 * width, 0.02)
        self.shared_modulation.bias.data[: 2 * width] = 0.2
        ratio = config.get("mlp_ratio", 4.0)
        self.blocks = nn.ModuleList(Block(width, config["heads"], depth, ratio) for _ in range(depth))
        self.head_modulation = Linear(width, 2 * width, 0.02)
        self.to_code = Linear(width, latent, 0.2 * deviation)
        self.head = Linear(latent, len(tokenizer.codebook), latent**-0.5)
        self.depth_head = DepthHead(width, latent, tokenizer.depth) if tokenizer.depth > 1 else None

    def standardise(self, words, guides):
        for linear, rows in [(self.word_embedding, words), *zip((g.embed for g in self.guides), guides)]:
            mean, deviation = rows.mean(0), rows.std(0, correction=0).clamp(min=1e-6)
            linear.weight.data /= deviation[:, None]
            linear.bias.data -= (linear.weight.data * mean[:, None]).sum(0)

    def start_head_from(self, codebook):
        codes = (codebook - codebook.mean(0)) / codebook.var(0, correction=0).sqrt().sqrt().clamp(min=1e-6)
        self.head.weight.data = (codes / codes.square().sum(1).mean().sqrt()).T.contiguous()

    def forward(self, visible, inputs, guide, places, learning):
        """`inputs[slot][k - 1]`: `[batch, tokens, latent]`; gives normed hidden states, scale by scale, slot by slot."""
        batch = len(guide[0]) if guide else len(inputs[0][0])
        condition = self.geo_embedding(places, batch)
        parts, ends, start = [], [], 0
        for k, side in enumerate(self.sides):
            for slot, modality in enumerate(visible):
                place = self.position[start : start + side * side] + self.level[k] + self.modality[modality]
                words = condition[:, None] + self.start_position if k == 0 else self.word_embedding(inputs[slot][k - 1])
                parts.append(words + place + guide[k] if guide else words + place)
            start += side * side
            ends.append(start * len(visible))
        x, shared = torch.cat(parts, 1), self.shared_modulation(F.silu(condition))
        for block, drop in zip(self.blocks, self.drops):
            x = block(x, shared, ends, drop if learning else 0)
        scale, shift = self.head_modulation(F.silu(condition)).unsqueeze(1).chunk(2, -1)
        return modulate(x, scale, shift)

    def logits(self, hidden, chosen, level):
        return self.head(self.to_code(hidden if level == 0 else self.depth_head(hidden, chosen, level)))


# --- Training -------------------------------------------------------------------------------------------------------


class Pairs:
    """All pictures on the device, `[pairs, 2, 3, side, side]` bytes: photograph, map; and their places, `[pairs, 3]`."""

    def __init__(self, data, selection, device):
        if data["layout"] == "manifest":
            with open(f"{data['manifest']}/manifest.jsonl") as lines:
                records = [json.loads(line) for line in lines][1:]
            records = [r for r in records if r["split"] == selection["split"]]
            files = [f"{data['manifest']}/{r['file']}" for r in records]
            places = [[r["place"]["longitude"], r["place"]["latitude"], r["metres_per_pixel"]] for r in records]
        else:
            names = sorted(os.listdir(data["folder"]), key=lambda name: int(name.split(".")[0]))
            names = [name for name in names if selection["first"] <= int(name.split(".")[0]) <= selection["last"]]
            files, places = [f"{data['folder']}/{name}" for name in names], [[math.nan] * 3 for _ in names]

        def read(file):
            if not os.path.exists(file):
                file = os.path.splitext(file)[0] + ".webp"
            picture = np.asarray(Image.open(file).convert("RGB"))
            half = picture.shape[1] // 2
            return np.stack([picture[:, :half], picture[:, half:]]).transpose(0, 3, 1, 2)

        with ThreadPoolExecutor() as pool:
            self.pictures = torch.from_numpy(np.stack(list(pool.map(read, files)))).to(device)
        self.places = torch.tensor(places, dtype=torch.float64, device=device)
        self.known = not bool(self.places[:, 0].isnan().all())

    def centred(self, indices, side):
        return resized(self.pictures[indices].float() / 127.5 - 1, side)

    def places_of(self, indices, side, zoom=1.0):
        """Places of pictures that show the share `zoom` of the whole on `side` pixels; none when no place is known."""
        if not self.known:
            return None
        places = self.places[indices].clone()
        places[:, 2] *= zoom * (self.pictures.shape[-1] / side)
        return places

    def cut(self, indices, side, augment, turn):
        """Squares as the configuration wants them, `[batch, 2, 3, side, side]`, the share `turn` of them turned by any
        angle; and the share of the whole side that each shows, `[batch]`."""
        b, device = len(indices), self.pictures.device
        draw = lambda low, high: torch.empty(b, device=device).uniform_(low, high)
        angle, tilted = draw(0, math.pi / 2), draw(0, 1) < turn
        angle = torch.where(tilted, angle, 0)
        share = torch.where(tilted, draw(0.92, 1) / (angle.cos() + angle.sin()), draw(augment["crop_min"], 1))
        room = torch.where(tilted, 0, 1 - share)
        if augment.get("quarter_turns"):
            angle = angle + torch.randint(4, (b,), device=device) * (math.pi / 2)
        mirrored = torch.where(draw(0, 1) < (0.5 if augment.get("flip") else 0), -1.0, 1.0)
        c, s = angle.cos() * share, angle.sin() * share
        rows = [torch.stack([c * mirrored, -s, draw(-1, 1) * room], 1), torch.stack([s * mirrored, c, draw(-1, 1) * room], 1)]
        grid = F.affine_grid(torch.stack(rows, 1), (b, 6, side, side), align_corners=False)
        flat = (self.pictures[indices].float() / 127.5 - 1).flatten(1, 2)
        cut = F.grid_sample(flat, grid, "bicubic", "reflection", align_corners=False)
        return cut.clamp(-1, 1).unflatten(1, (2, 3)), share


def resized(pictures, side):
    if pictures.shape[-1] == side:
        return pictures
    flat = F.interpolate(pictures.flatten(1, 2), (side, side), mode="bicubic", antialias=True, align_corners=False)
    return flat.clamp(-1, 1).unflatten(1, (2, 3))


def jittered(pictures, amount):
    """Other brightness, contrast, saturation and tint of each picture `[batch, 3, h, w]`."""
    b = len(pictures)
    draw = lambda *shape: torch.empty(b, *shape, 1, 1, device=pictures.device).uniform_(-amount, amount)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * (1 + draw(1)) + mean + draw(1) + 0.3 * draw(3)
    grey = pictures.mean(1, keepdim=True)
    return (grey + (pictures - grey) * (1 + draw(1))).clamp(-1, 1)


class Teacher:
    def __init__(self, config, tokenizer, device):
        self.config, self.tokenizer = config, tokenizer
        self.random = np.random.default_rng(config["seed"])
        self.generator = torch.Generator(device).manual_seed(config["seed"])

    def view(self):
        config = self.config
        hide, half, joint, to_map = self.random.random(4)
        if hide < config["hide_condition"]:
            return [int(half < 0.5)], None
        if joint < config["joint_share"]:
            return [0, 1], None
        target = int(to_map < config["to_map_share"])
        return [target], 1 - target

    def losses(self, model, pictures, places, visible, known, learning, jitter=0):
        """Cross-entropy in nats per code of each visible modality and scale, as a list of lists of means."""
        config, tokenizer = self.config, self.tokenizer
        with torch.no_grad(), torch.autocast("cuda", enabled=False):
            seen = [tokenizer.encode(tokenizer.features(pictures[:, m]), config["token_noise"] * learning, self.generator) for m in visible]
            guide = None
            if known is not None:
                picture = pictures[:, known]
                features = tokenizer.features(jittered(picture, jitter) if learning and jitter and known == 0 else picture)
                if learning and config.get("blotted", 0) > 0:
                    mean = features.mean((0, 2, 3), keepdim=True)
                    kept = torch.rand(len(features), 1, *features.shape[2:], device=features.device) >= config["blotted"]
                    features = torch.where(kept, features, mean)
        if not config["trained_on"]["places_known"]:
            places = None
        elif learning and places is not None:
            hidden = torch.rand(len(places), 1, device=places.device) < config["hide_place"]
            places = torch.where(hidden, math.nan, places)
        if known is not None:
            guide = model.guides[known](features, tokenizer.down)
        hidden = model(visible, [inputs for _, inputs, _ in seen], guide, places, learning)
        batch, length, width = hidden.shape
        codes = torch.cat([codes[k] for k in range(len(tokenizer.sides)) for codes, *_ in seen], 1).reshape(-1, tokenizer.depth)
        rows, loss = hidden.reshape(-1, width), 0
        for level in range(tokenizer.depth):
            chosen = tokenizer.codebook[codes[:, :level]].sum(1) if level else None
            logits = model.logits(rows, chosen, level).float()
            smoothing = config.get("label_smoothing", 0.0) * learning
            loss = loss + F.cross_entropy(logits, codes[:, level], reduction="none", label_smoothing=smoothing) / tokenizer.depth
        loss, at, parts = loss.reshape(batch, length), 0, [[] for _ in visible]
        for side in tokenizer.sides:
            for slot in range(len(visible)):
                parts[slot].append(loss[:, at : at + side * side].mean())
                at += side * side
        return parts

    def weighted(self, parts, visible):
        weights = [self.config["map_weight"] if modality == 1 else 1.0 for modality in visible]
        shares = self.config["scale_weights"]
        means = [sum(share * part for share, part in zip(shares, scale)) for scale in parts]
        return sum(weight * mean for weight, mean in zip(weights, means)) / sum(weights)


def validate(teacher, model, pairs, side, device):
    """Nats per code toward the photograph and toward the map, over all tokens alike."""
    counts, out = [s * s for s in teacher.tokenizer.sides], []
    for target in (0, 1):
        total = 0
        for start in range(0, len(pairs.pictures), 32):
            indices = torch.arange(start, min(start + 32, len(pairs.pictures)), device=device)
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                (scales,) = teacher.losses(model, pairs.centred(indices, side), pairs.places_of(indices, side), [target], 1 - target, False)
            total += len(indices) * sum(c * float(loss) for c, loss in zip(counts, scales)) / sum(counts)
        out.append(total / len(pairs.pictures))
    return out


def save(model, config, out, storage=torch.float16):
    os.makedirs(out, exist_ok=True)
    tensors = {name: value.detach().to(storage).cpu().contiguous() for name, value in model.items()}
    save_file(tensors, f"{out}/model.safetensors.part")
    os.replace(f"{out}/model.safetensors.part", f"{out}/model.safetensors")
    transformer = {"mlp_ratio": 4.0, "norm_epsilon": 1e-6, "modalities": ["satellite", "map"], "place_octaves": 17}
    transformer |= config["transformer"]
    trained_on = {"datum": ""} | config["trained_on"]
    text = {"format": 1, "name": config["name"], "transformer": transformer, "trained_on": trained_on}
    json.dump(text, open(f"{out}/config.json", "w"), indent=2)


def weights_of(folder):
    return {name: value.float() for name, value in load_file(f"{folder}/model.safetensors").items()}


def start(model, tokenizer, training, side, device):
    """What a new network takes from the data: the scale of its inputs, and the codebook for its head."""
    with torch.no_grad():
        first = training.centred(torch.arange(min(32, len(training.pictures)), device=device), side)
        features = [tokenizer.features(first[:, m]) for m in (0, 1)]
        words = torch.cat([x.flatten(0, 1) for f in features for x in tokenizer.encode(f, 0, None)[1]])
        model.standardise(words, [f.permute(0, 2, 3, 1).flatten(0, 2) for f in features])
        model.start_head_from(tokenizer.codebook)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("out")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--check", metavar="MODEL")
    parser.add_argument("--tokenizer", metavar="FOLDER", help="of a model, instead of the configuration's")
    parser.add_argument("--from", dest="start", metavar="MODEL", help="goes on from the weights of this model folder")
    parser.add_argument("--rate", type=float, help="highest learning rate, instead of the configuration's")
    parser.add_argument("--jitter", type=float, default=0.0)
    parser.add_argument("--turn", type=float, default=0.0)
    parser.add_argument("--keep-every", type=float, default=60, metavar="SECONDS")
    args = parser.parse_args()
    config = tomllib.load(open(args.config, "rb"))
    began = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(config["seed"])
    np.random.seed(config["seed"])
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    tokenizer = Tokenizer(args.tokenizer or config["tokenizer"], device)
    teacher = Teacher(config, tokenizer, device)
    side = tokenizer.config["picture_side"]
    model = Transformer(config["transformer"], tokenizer).to(device)
    validation = Pairs(config["data"], config["validation"], device)
    if args.check:
        model.load_state_dict(weights_of(args.check))
        print("nats per code, satellite and map:", validate(teacher, model, validation, side, device))
        return
    training = Pairs(config["data"], config["training"], device)
    if args.start:
        model.load_state_dict(weights_of(args.start))
    else:
        start(model, tokenizer, training, side, device)
    settings = config["optimiser"] | ({"learning_rate": args.rate} if args.rate else {})
    matrices = [p for n, p in model.named_parameters() if n.endswith("weight") and sum(s > 1 for s in p.shape) > 1]
    others = [p for n, p in model.named_parameters() if not any(p is m for m in matrices)]
    groups = [{"params": matrices, "weight_decay": settings["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(0.9, 0.95), fused=device.type == "cuda")
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    averaged = Transformer(config["transformer"], tokenizer).to(device)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters, ready after {time.time() - began:.0f} s", flush=True)
    os.makedirs(args.out, exist_ok=True)
    log = open(f"{args.out}/metrics.jsonl", "a")
    started, kept, best, step, end = time.time(), time.time(), None, 0, began + 60 * args.minutes
    order = torch.empty(0, dtype=torch.long)
    batch = min(config["batch_size"] * config.get("accumulate", 1), len(training.pictures))
    running = []
    while True:
        now = time.time()
        # The schedule follows the time: what a step costs is not known before.
        done = min((now - started) / (end - started), 1)
        rate = settings["learning_rate"] * min((step + 1) / settings["warm_up"], 1)
        final = settings.get("final_rate", 0.05)
        rate *= final + (1 - final) * 0.5 * (1 + math.cos(done * math.pi))
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(training.pictures))])
        indices, order = order[:batch].to(device), order[batch:]
        visible, known = teacher.view()
        with torch.no_grad():
            pictures, shares = training.cut(indices, side, config["augment"], args.turn)
            places = training.places_of(indices, side, shares)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = teacher.weighted(teacher.losses(model, pictures, places, visible, known, True, args.jitter), visible)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimiser.step()
        step += 1
        decay = min(settings["average_decay"], (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(model.state_dict().values()), 1 - decay)
        if known == 0:
            running.append(loss.detach())
        last = time.time() >= end
        if last or time.time() - kept >= args.keep_every:
            kept = time.time()
            averaged.load_state_dict(average)
            nats = validate(teacher, averaged, validation, side, device)
            line = {"step": step, "seconds": round(time.time() - began, 1), "rate": rate, "items": step * batch, "loss_to_map": float(torch.stack(running).mean()) if running else None, "validation": nats}
            running = []
            print(json.dumps(line), flush=True)
            log.write(json.dumps(line) + "\n")
            log.flush()
            # Toward the map twice as much as toward the photograph, as in the run of the program.
            score = (nats[0] + config["map_weight"] * nats[1]) / (1 + config["map_weight"])
            if best is None or score < best:
                best = score
                save(average, config, args.out)
        if last:
            break


if __name__ == "__main__":
    main()

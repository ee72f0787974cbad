"""Computes the numbers that crates/lab/tests/metrics_agreement.rs must meet, by the field's own packages.

    python -m venv scratch && scratch/bin/pip install torch torchvision pytorch-fid torch-fidelity prdc scikit-image \
        lpips opencv-contrib-python-headless
    scratch/bin/python tools/metrics_reference.py crates/lab/tests/metrics_reference.json

Networks have random weights that both languages make out of names (tools/seeded.py): nothing is downloaded.
"""

import json
import os
import re
import sys
import tempfile
from importlib.metadata import version

import cv2
import lpips
import numpy as np
import prdc
import pytorch_fid.inception
import torch
import torchvision
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_kid import kid_features_to_metric

import seeded

PICTURES = 24
PAIRS = 3
LARGE = (400, 320)
# More features of no picture than they are wide.
SYNTHETIC = {"real": 300, "made": 200, "width": 48}
KID_DEFAULTS = {
    "kid_kernel": "poly",
    "kid_kernel_poly_degree": 3,
    "kid_kernel_poly_gamma": None,
    "kid_kernel_poly_coef0": 1,
    "verbose": False,
    "rng_seed": 2020,
}


def seeded_state(module, wanted):
    """Fills the tensors that `wanted` names with seeded numbers and all others with zeros."""
    state = module.state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items() if wanted(name)}
    values = {name: torch.from_numpy(seeded.weights(name, shape)) for name, shape in shapes.items()}
    return {**{name: torch.zeros_like(tensor) for name, tensor in state.items()}, **values}, shapes


def inceptions(folder):
    """pytorch-fid's and torch-fidelity's network with the same weights, and the shapes of these."""
    pytorch_fid.inception.load_state_dict_from_url = lambda *_, **__: state
    bare = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
    needed = lambda name: not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    state, shapes = seeded_state(bare, needed)
    path = os.path.join(folder, "inception.pth")
    torch.save(state, path)
    fid = pytorch_fid.inception.InceptionV3([3]).eval()
    fidelity = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=path)
    return fid, fidelity, shapes


def stacked(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def inception_numbers(folder):
    fid, fidelity, shapes = inceptions(folder)
    half_pixel = lambda pictures: fid(stacked(pictures).float() / 255)[0].squeeze(3).squeeze(2).numpy()
    corner = lambda pictures: fidelity(stacked(pictures))[0].numpy()
    sets = {
        kind: [seeded.picture(kind, index) for index in range(PICTURES)] for kind in (seeded.REAL, seeded.MADE)
    }
    large = [seeded.picture(seeded.REAL, 0, *LARGE)]
    numbers = {"shapes": shapes, "pictures": PICTURES, "large": LARGE}
    for name, network in [("half_pixel", half_pixel), ("corner", corner)]:
        real, made = network(sets[seeded.REAL]), network(sets[seeded.MADE])
        numbers[name] = {
            "first": real[0, ::64].tolist(),
            "large": network(large)[0, ::64].tolist(),
            **set_numbers(real, made, subset_size=16),
        }
    return numbers


def set_numbers(real, made, subset_size):
    moments = lambda features: (features.mean(axis=0), np.cov(features, rowvar=False))
    wide = [features.astype(np.float64) for features in (real, made)]
    frechet = calculate_frechet_distance(*moments(wide[0]), *moments(wide[1]))
    # The estimate over all pictures and the one over subsets, whose indices torch-fidelity draws in this order.
    count, subsets = min(len(real), len(made)), 10
    kid = lambda features, count, size: kid_features_to_metric(
        *(torch.from_numpy(f) for f in features), kid_subsets=count, kid_subset_size=size, **KID_DEFAULTS
    )
    whole = kid([features[:count] for features in wide], 1, count)
    over_subsets = kid(wide, subsets, subset_size)
    random = np.random.RandomState(KID_DEFAULTS["rng_seed"])
    draw = lambda features: random.choice(len(features), subset_size, replace=False).tolist()
    return {
        "frechet": float(frechet.real),
        "kernel_whole": whole["kernel_inception_distance_mean"],
        "kernel_subsets": [[draw(real), draw(made)] for _ in range(subsets)],
        "kernel_mean": over_subsets["kernel_inception_distance_mean"],
        "kernel_deviation": over_subsets["kernel_inception_distance_std"],
        "prdc": {name: float(value) for name, value in prdc.compute_prdc(real, made, nearest_k=3).items()},
    }


def pairs():
    return [(seeded.picture(seeded.REAL, i), seeded.picture(seeded.MADE, i)) for i in range(PAIRS)]


def pixel_numbers():
    def of(real, made):
        real, made = real / 255, made / 255
        return {
            "rmse": float(np.sqrt(mean_squared_error(real, made))),
            "psnr": float(peak_signal_noise_ratio(real, made, data_range=1)),
            "ssim": float(structural_similarity(real, made, channel_axis=2, data_range=1)),
        }

    return [of(real, made) for real, made in pairs()]


@torch.no_grad()
def lpips_numbers():
    numbers = {}
    real, made = (stacked(pictures).float() / 127.5 - 1 for pictures in zip(*pairs()))
    for net in ("alex", "vgg", "squeeze"):
        network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        # torchvision's names for the classifier: net.slice2.3.weight → features.3.weight
        torchvision_name = lambda name: "features." + name.split(".", 2)[2] if name.startswith("net.") else name
        state, shapes = network.state_dict(), {}
        for name, tensor in state.items():
            if name.startswith(("net.", "lin")) and not name.startswith("lins."):
                shapes[torchvision_name(name)] = list(tensor.shape)
                tensor.copy_(torch.from_numpy(seeded.weights(torchvision_name(name), list(tensor.shape))))
        numbers[net] = {"shapes": shapes, "distances": network(real, made).flatten().tolist()}
    return numbers


def skeleton_numbers(width=96, height=64):
    # OpenCV leaves the pixels at the rim alone, so there is a rim more.
    mask = np.pad(seeded.mask(width, height), 2).astype(np.uint8) * 255
    rows = cv2.ximgproc.thinning(mask, thinningType=cv2.ximgproc.THINNING_GUOHALL)[2:-2, 2:-2]
    return {"size": [width, height], "rows": ["".join(".#"[int(v > 0)] for v in row) for row in rows]}


def main(path):
    torch.manual_seed(0)
    synthetic = [
        seeded.features(kind, SYNTHETIC[kind], SYNTHETIC["width"]) for kind in (seeded.REAL, seeded.MADE)
    ]
    with tempfile.TemporaryDirectory() as folder:
        numbers = {
            "versions": {
                name: version(name)
                for name in (
                    "torch", "pytorch-fid", "torch-fidelity", "prdc", "scikit-image", "lpips",
                    "opencv-contrib-python-headless",
                )
            },
            "inception": inception_numbers(folder),
            "synthetic": {**SYNTHETIC, **set_numbers(*synthetic, subset_size=50)},
            "pixels": pixel_numbers(),
            "lpips": lpips_numbers(),
            "skeleton": skeleton_numbers(),
        }
    text = json.dumps(numbers, indent=1)
    # Lists of numbers on one line each.
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    with open(path, "w") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

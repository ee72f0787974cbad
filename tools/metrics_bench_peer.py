"""Times the usual Python packages on the pictures and networks of `cargo bench --workspace --bench metrics`.

    scratch/bin/python tools/metrics_bench_peer.py [threads]

Set up the environment as tools/metrics_reference.py says. Prints the median of some runs of each part, by the clock and in
processor time of all threads, which says more on a busy machine.
"""

import os
import statistics
import sys
import tempfile
import time

import lpips
import numpy as np
import prdc
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from torch_fidelity.metric_kid import kid_features_to_metric

import seeded
from metrics_reference import KID_DEFAULTS, inceptions, stacked

PICTURES, SIZE, SET = 8, (256, 256), 1000


def report(name, part, runs, count=1):
    part()
    clock, processor = [], []
    for _ in range(runs):
        start = time.perf_counter(), time.process_time()
        part()
        clock.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    clock, processor = statistics.median(clock) / count, statistics.median(processor) / count
    print(f"{name:24} {clock * 1e3:12.3f} ms {1 / clock:10.2f} /s {processor * 1e3:12.3f} ms of processors", flush=True)


@torch.no_grad()
def main():
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0)))
    sets = [[seeded.picture(kind, i, *SIZE) for i in range(PICTURES)] for kind in (seeded.REAL, seeded.MADE)]
    real, made = (stacked(pictures) for pictures in sets)
    with tempfile.TemporaryDirectory() as folder:
        fid, _, _ = inceptions(folder)
    for size in (1, PICTURES):
        batches = (real.float() / 255).split(size)
        report(f"inception, batch {size}", lambda: [fid(batch)[0] for batch in batches], 7, PICTURES)
    fid = fid.to(memory_format=torch.channels_last)
    batch = (real.float() / 255).contiguous(memory_format=torch.channels_last)
    report("inception, channels last", lambda: fid(batch), 7, PICTURES)
    real, made = real.float() / 127.5 - 1, made.float() / 127.5 - 1
    for net in ("alex", "squeeze", "vgg"):
        network = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        report(f"lpips {net}", lambda: network(real, made), 5, PICTURES)

    first, second = (pictures[0] / 255 for pictures in sets)
    report("rmse", lambda: np.sqrt(mean_squared_error(first, second)), 51)
    report("psnr", lambda: peak_signal_noise_ratio(first, second, data_range=1), 51)
    report("ssim", lambda: structural_similarity(first, second, channel_axis=2, data_range=1), 51)

    features = [seeded.features(kind, SET, 2048) for kind in (seeded.REAL, seeded.MADE)]
    moments = lambda features: (features.mean(axis=0), np.cov(features, rowvar=False))
    report("fid", lambda: calculate_frechet_distance(*moments(features[0]), *moments(features[1])), 1)
    tensors = [torch.from_numpy(f) for f in features]
    kid = lambda: kid_features_to_metric(*tensors, kid_subsets=10, kid_subset_size=SET // 2, **KID_DEFAULTS)
    report("kid", kid, 5)
    report("precision and recall", lambda: prdc.compute_prdc(*features, nearest_k=3), 3)


if __name__ == "__main__":
    main()

"""Reads windows and writes COGs with GDAL (rasterio) and with crates/geo, in turn on the same files and cores.

    python3 -m venv venv && venv/bin/pip install rasterio numpy
    cargo build --release -p earthmapper-geo --example raster_speed
    venv/bin/python tools/geo_bench_peer.py --program target/release/examples/raster_speed

Both sides open a file, read the same windows (three bands of bytes) and close it; pages of the file are in the
system's cache. GDAL runs in a process of its own as well; its start is not counted. Rounds alternate, so that both meet
the same neighbours; medians and the ratio of medians are printed as a table. The clock counts time on the processor, which
a busy machine hardly changes, or (--clock wall) time on the wall, which is what matters with several cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

SIDE = 4096
WINDOWS = {256: 32, 1024: 6}


def corners(width, height, side, count):
    for n in range(1, count + 1):
        yield int(n * 0.75487767 % 1 * (width - side)), int(n * 0.56984029 % 1 * (height - side))


def now():
    return time.perf_counter(), time.process_time()


def elapsed(begun):
    return [end - start for start, end in zip(begun, now())]


def gdal_read(path, side, count):
    import rasterio
    from rasterio.windows import Window

    begun = now()
    with rasterio.open(path) as dataset:
        for x, y in corners(dataset.width, dataset.height, side, count):
            dataset.read([1, 2, 3], window=Window(x, y, side, side))
    return elapsed(begun)


def gdal_write(source, target):
    import rasterio.shutil

    begun = now()
    rasterio.shutil.copy(source, target, driver="COG", compress="DEFLATE", predictor="YES", blocksize=256,
                         overview_resampling="AVERAGE", num_threads=os.environ.get("GDAL_NUM_THREADS", "1"))
    return elapsed(begun)


def scene():
    """Something that packs as a photograph does: smooth ground, edges and noise."""
    import numpy

    random = numpy.random.default_rng(7)
    coarse = random.integers(40, 200, (3, SIDE // 64, SIDE // 64)).astype(numpy.float32)
    ground = coarse.repeat(64, axis=1).repeat(64, axis=2)
    for axis in (1, 2):
        ground = (ground + numpy.roll(ground, 16, axis) + numpy.roll(ground, 32, axis)) / 3
    return numpy.clip(ground + random.normal(0, 4, ground.shape), 1, 255).astype(numpy.uint8)


def make_files(folder):
    import rasterio
    from rasterio.transform import from_origin

    pixels = scene()
    profile = dict(driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", crs="EPSG:26914",
                   transform=from_origin(485900, 5209245, 1, 1), photometric="RGB", interleave="pixel")
    kinds = {"none": {}, "deflate": dict(compress="DEFLATE", predictor=2), "lzw": dict(compress="LZW", predictor=2),
             "zstd": dict(compress="ZSTD", predictor=2), "jpeg": dict(compress="JPEG", photometric="YCBCR")}
    layouts = {"tiles": dict(tiled=True, blockxsize=256, blockysize=256), "strips": dict(blockysize=16)}
    files = {}
    for kind, packing in kinds.items():
        for layout, blocks in layouts.items():
            path = os.path.join(folder, f"{kind}-{layout}.tif")
            with rasterio.open(path, "w", **{**profile, **packing, **blocks}) as dataset:
                dataset.write(pixels)
            files[kind, layout] = path
    return files


def run(command, environment, clock):
    """Seconds that a program says it took, or those that it was on the processor."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    printed = process.stdout.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command} failed")
    if clock == "wall":
        return float(printed[0])
    # GDAL's process says it itself, because Python's start is not counted.
    return float(printed[1]) if "--gdal" in command else usage.ru_utime + usage.ru_stime


def compare(name, ours, peer, rounds):
    """Alternates both; each is a function of no arguments that gives seconds."""
    ours(), peer()
    times = [(ours(), peer()) for _ in range(rounds)]
    own, other = (statistics.median(column) for column in zip(*times))
    print(f"| {name} | {own * 1000:.0f} | {other * 1000:.0f} | {own / other:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/examples/raster_speed")
    parser.add_argument("--cores", default="0", help="numbers of the cores that both may use, as 0,1")
    parser.add_argument("--clock", choices=["processor", "wall"], default="processor")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="a part of the names of cases")
    parser.add_argument("--gdal", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.gdal:
        what, *rest = options.gdal
        seconds = gdal_read(rest[0], int(rest[1]), int(rest[2])) if what == "read" else gdal_write(*rest)
        print(*seconds)
        return
    cores = {int(core) for core in options.cores.split(",")}
    os.sched_setaffinity(0, cores)
    threads = {"RAYON_NUM_THREADS": str(len(cores)), "GDAL_NUM_THREADS": str(len(cores))}
    gdal = [sys.executable, os.path.abspath(__file__), "--gdal"]
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(folder)
        print(f"{SIDE} x {SIDE} pixels, {len(cores)} core(s), {options.clock} time, medians of {options.rounds} rounds\n")
        print("| case | ours, ms | GDAL, ms | ours / GDAL |\n|---|---:|---:|---:|")
        for (kind, layout), path in files.items():
            for side, count in WINDOWS.items():
                name = f"{count} windows of {side}, {kind}, {layout}"
                if options.only in name:
                    case = ["read", path, str(side), str(count)]
                    compare(name, lambda: run([options.program, *case], threads, options.clock),
                            lambda: run([*gdal, *case], threads, options.clock), options.rounds)
        name = "COG, deflate, with overviews"
        if options.only in name:
            plain, out = files["none", "tiles"], os.path.join(folder, "out.tif")
            sizes = []
            def written(command):
                seconds = run([*command, "write", plain, out], threads, options.clock)
                sizes.append(os.path.getsize(out))
                os.remove(out)
                return seconds
            compare(name, lambda: written([options.program]), lambda: written(gdal), options.rounds)
            print(f"\nBytes of the COG: {sizes[-2]:,} (ours), {sizes[-1]:,} (GDAL)")


if __name__ == "__main__":
    main()

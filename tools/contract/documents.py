#!/usr/bin/env python3
"""The documents of a running server as other programs read them.

    python3 tools/contract/documents.py http://127.0.0.1:8000 [schema of TileJSON 3.0]

Needs OWSLib, lxml, jsonschema and rasterio (whose GDAL opens WMTS, as QGIS does). Every check is a line; the exit code is 0
when all hold. The schema is that of the TileJSON specification (3.0.0/schema.json).
"""

import io
import json
import re
import sys
import urllib.request

import jsonschema
import numpy
import rasterio
from lxml import etree
from owslib.wmts import WebMapTileService
from PIL import Image

base = sys.argv[1].rstrip("/")
schema = json.load(open(sys.argv[2])) if len(sys.argv) > 2 else None
failures = 0


def check(what, holds, more=""):
    global failures
    print("ok  " if holds else "FAIL", what, more, flush=True)
    failures += not holds


def get(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers


def tile_json(url):
    document = json.loads(get(url)[0])
    name = url.removeprefix(base)
    if schema:
        try:
            jsonschema.validate(document, schema)
            problem = ""
        except jsonschema.ValidationError as error:
            problem = error.message
        check(f"{name} holds to the schema", not problem, problem)
    west, south, east, north = document["bounds"]
    longitude, latitude, zoom = document["center"]
    check(f"{name} is TileJSON 3.0", document["tilejson"] == "3.0.0" and document["scheme"] == "xyz")
    check(f"{name} has bounds", -180 <= west < east <= 180 and -90 <= south < north <= 90, str(document["bounds"]))
    check(f"{name} has its centre inside", west <= longitude <= east and south <= latitude <= north)
    check(f"{name} has zooms", 0 <= document["minzoom"] <= zoom <= document["maxzoom"] <= 30)
    check(f"{name} has absolute addresses", all(url.startswith(base + "/") for url in document["tiles"]))
    if "/original/" not in url:
        check(f"{name} says that it is synthetic", "synthetic" in document["attribution"])
    return document


def tile_at(document, longitude, latitude, zoom):
    side = 2 ** zoom
    column = int((longitude + 180) / 360 * side)
    row = int((0.5 - numpy.arctanh(numpy.sin(numpy.radians(latitude))) / (2 * numpy.pi)) * side)
    url = document["tiles"][0].replace("{z}", str(zoom)).replace("{x}", str(column)).replace("{y}", str(row))
    return Image.open(io.BytesIO(get(url)[0])), (column, row)


catalog = json.loads(get(f"{base}/catalog")[0])
for source in catalog["sources"]:
    for direction in source["directions"]:
        document = tile_json(direction["tilejson"])
        longitude, latitude, _ = document["center"]
        picture, _ = tile_at(document, longitude, latitude, document["minzoom"])
        check(f"a tile of it has {document['tileSize']} pixels", picture.size == (document["tileSize"],) * 2)
        tile_json(direction["tilejson"].replace("/tilejson.json", "/uncertainty/tilejson.json"))
    for original in source["originals"]:
        tile_json(original["tilejson"])

xml, headers = get(f"{base}/wmts")
check("the capabilities are XML", headers["Content-Type"] == "application/xml" and etree.fromstring(xml) is not None)
service = WebMapTileService(f"{base}/wmts")
check("OWSLib reads them", service.version == "1.0.0" and service.identification.type == "OGC WMTS")
wanted = {f"{source['id']}-{part}" for source in catalog["sources"] for part in
          [direction["to"] for direction in source["directions"]] + [f"original-{original['of']}" for original in source["originals"]]}
check("every source is a layer", wanted <= set(service.contents), " ".join(sorted(service.contents)))
for name, layer in service.contents.items():
    (link,) = layer.tilematrixsetlinks.values()
    limits = link.tilematrixlimits
    check(f"{name} has limits and a style", len(limits) > 0 and list(layer.styles) == ["default"], " ".join(limits))
    matrices = service.tilematrixsets[link.tilematrixset].tilematrix
    check(f"{name}: its zooms are in the set", set(limits) <= set(matrices))
    zoom, limit = next(iter(limits.items()))
    template = layer.resourceURLs[0]["template"]
    for number, value in [("{TileMatrix}", zoom), ("{TileCol}", limit.mintilecol), ("{TileRow}", limit.mintilerow)]:
        template = template.replace(number, str(value))
    if "uncertainty" not in name:
        body, headers = get(template)
        check(f"{name}: its first tile is there", headers["Content-Type"] == layer.resourceURLs[0]["format"], f"{len(body)} bytes")
    # The scale of a matrix and its corner say where each tile lies.
    matrix = matrices[zoom]
    span = matrix.scaledenominator * 0.00028 * matrix.tilewidth
    west = matrix.topleftcorner[0] + limit.mintilecol * span
    degrees = numpy.degrees(west / 6378137)
    check(f"{name}: the first column lies at its border", degrees <= layer.boundingBoxWGS84[0] + 1e-9 < degrees + 360 / 2 ** int(zoom))

for name in sorted(wanted):
    path = f"WMTS:{base}/wmts,layer={name}"
    with rasterio.open(path) as opened:
        zooms = [int(zoom) for zoom in next(iter(service.contents[name].tilematrixsetlinks.values())).tilematrixlimits]
        check(f"GDAL opens {name}", opened.crs.to_epsg() == 3857 and opened.count >= 3, f"{opened.width} x {opened.height}")
        # The middle pixels at the deepest zoom, against the tile fetched by its address.
        part, *rest = name.rsplit("-original-", 1)
        kind = "/original/" if rest else "/"
        identifier, modality = (part, rest[0]) if rest else name.rsplit("-", 1)
        url = f"{base}/{identifier}{kind}tilejson.json?{'of' if rest else 'to'}={modality}"
        document = json.loads(get(url)[0])
        # Decoders of JPEG differ by a little; the layer's tiles are PNG.
        document["tiles"] = [re.sub(r"\.\w+\?", ".png?", template) for template in document["tiles"]]
        longitude, latitude, _ = document["center"]
        picture, (column, row) = tile_at(document, longitude + 1e-4, latitude - 1e-4, max(zooms))
        span = 2 * 20037508.342789244 / 2 ** max(zooms)
        left, top = -20037508.342789244 + column * span, 20037508.342789244 - row * span
        window = rasterio.windows.from_bounds(left, top - span, left + span, top, opened.transform)
        read = opened.read([1, 2, 3], window=window, out_shape=(3, *picture.size))
        tile = numpy.asarray(picture.convert("RGB")).transpose(2, 0, 1)
        differs = numpy.abs(read.astype(int) - tile).max()
        check(f"GDAL reads {name}'s pixels where they belong", differs == 0, f"differs by {differs} at most")

answer = urllib.request.Request(f"{base}/wmts?SERVICE=WMTS&REQUEST=GetTile")
try:
    urllib.request.urlopen(answer)
    check("other operations are refused", False)
except urllib.error.HTTPError as error:
    check("other operations are refused", error.code == 400 and b"OperationNotSupported" in error.read())
text = get(f"{base}/metrics")[0].decode()
line = re.compile(r'^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"\n]*"(,[a-z]+="[^"\n]*")*\})? [0-9.e+-]+)$')
bad = [one for one in text.splitlines() if not line.match(one)]
check("the counts are lines for Prometheus", not bad and text.endswith("\n"), " | ".join(bad[:3]))
sys.exit(1 if failures else 0)

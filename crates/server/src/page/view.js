// Two maps on top of each other that move together, and the border between them.

import * as maplibre from "./maplibre-gl.mjs";
import { base, say } from "./api.js";

const stage = document.getElementById("stage");
const swipe = document.getElementById("swipe");
const after = document.getElementById("after");
const busy = document.getElementById("busy");

/** Tiles of a picture, as MapLibre wants them. */
function tiles(path, query, about) {
  const [west, south, east, north] = about.bounds;
  return {
    type: "raster",
    tiles: [`${base}${path}/{z}/{x}/{y}.png?${query}`],
    tileSize: about.tile_size,
    minzoom: about.min_zoom,
    maxzoom: about.max_zoom,
    bounds: [west, south, east, north],
  };
}

export class View {
  constructor(state, changed) {
    this.state = state;
    const shared = {
      style: { version: 8, sources: {}, layers: [] },
      center: [state.lon ?? 0, state.lat ?? 0],
      zoom: state.z ?? 2,
      maxPitch: 0,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 150,
      canvasContextAttributes: { preserveDrawingBuffer: true },
    };
    this.before = new maplibre.Map({ ...shared, container: "before", attributionControl: false });
    this.after = new maplibre.Map({ ...shared, container: "after", attributionControl: false });
    this.after.addControl(new maplibre.NavigationControl({ showCompass: false }), "bottom-right");
    for (const map of [this.before, this.after]) {
      map.touchZoomRotate.disableRotation();
      map.keyboard.disableRotation();
      map.on("error", (event) => this.failed(map, event));
    }
    this.follow(this.before, this.after);
    this.follow(this.after, this.before);
    this.after.on("moveend", () => {
      const { lng, lat } = this.after.getCenter();
      Object.assign(state, { lon: lng, lat, z: this.after.getZoom() });
      changed();
    });
    // Tiles take the model a moment: said when it is more than one.
    let soon;
    this.after.on("dataloading", () => {
      soon ??= setTimeout(() => { busy.hidden = this.after.areTilesLoaded(); }, 400);
    });
    this.after.on("idle", () => {
      clearTimeout(soon);
      soon = undefined;
      busy.hidden = true;
    });
    this.overlays = [];
    this.loaded = Promise.all([this.before, this.after].map((map) => map.once("load")));
    this.listen(changed);
    this.place(state.swipe ?? 0.5);
  }

  /** Moves one map as the other moves. */
  follow(leader, follower) {
    leader.on("move", () => {
      if (this.following) return;
      this.following = true;
      follower.jumpTo({ center: leader.getCenter(), zoom: leader.getZoom() });
      this.following = false;
    });
  }

  /** A server that has too much to do is asked again; other failures are said. */
  failed(map, event) {
    const status = event.error?.status;
    if (status === 404) return;
    if (status === 503 || status === 429) {
      say("The server has much to do; asking again …", 4);
      clearTimeout(this.again);
      this.again = setTimeout(() => this.reload(), 3000);
      return;
    }
    say(event.error?.message ?? "A tile could not be shown.", 6);
  }

  reload() {
    for (const name of ["result", "uncertainty"]) {
      const source = this.after.getSource(name);
      if (source) source.setTiles([...source.tiles]);
    }
  }

  /** Shows a source in a direction. */
  show(source, direction) {
    const state = this.state;
    this.direction = direction;
    // Beside the maps, not in them: half of a map may be covered.
    document.getElementById("credit").textContent = direction.attribution;
    const original = source.originals.find((one) => one.of !== direction.to);
    const query = `to=${direction.to}&seed=${state.seed}`;
    this.clear();
    for (const map of [this.before, this.after]) {
      for (const layer of map.getStyle().layers) map.removeLayer(layer.id);
      for (const name of Object.keys(map.getStyle().sources)) map.removeSource(name);
      map.setMinZoom(Math.max(0, direction.min_zoom - 1.5));
      map.setMaxZoom(direction.max_zoom + 2);
    }
    this.add(this.before, "original", tiles(`${source.id}/original`, `of=${original.of}`, original));
    this.add(this.after, "result", tiles(source.id, query, direction));
    this.add(this.after, "uncertainty", tiles(`${source.id}/uncertainty`, query, direction), false);
    this.opacity(state.o ?? 1);
    this.uncertainty(state.u);
  }

  add(map, name, source, visible = true) {
    map.addSource(name, source);
    const layout = { visibility: visible ? "visible" : "none" };
    map.addLayer({ id: name, type: "raster", source: name, layout, paint: { "raster-fade-duration": 150 } });
  }

  /** The whole ground of a source. */
  fit(direction, wantsAll) {
    const [west, south, east, north] = direction.bounds;
    const bounds = [[west, south], [east, north]];
    if (wantsAll) {
      this.after.fitBounds(bounds, { animate: false, padding: 0, maxZoom: direction.max_zoom });
      // A zoom deeper than the lowest, pixel for pixel: close enough to see something, and few tiles to be made. At the lowest
      // itself, a tile of the demo takes the model three times as long.
      const least = direction.min_zoom - Math.log2(512 / direction.tile_size) + 1;
      if (this.after.getZoom() < least) this.after.setZoom(least);
    }
  }

  opacity(value) {
    this.state.o = value;
    if (this.after.getLayer("result")) this.after.setPaintProperty("result", "raster-opacity", value);
  }

  uncertainty(visible) {
    this.state.u = visible;
    if (!this.after.getLayer("uncertainty")) return;
    this.after.setLayoutProperty("uncertainty", "visibility", visible ? "visible" : "none");
    this.after.setPaintProperty("uncertainty", "raster-opacity", 0.75);
  }

  /** Lays a picture on a map; corners from the upper left on, clockwise. */
  overlay(map, url, [west, south, east, north]) {
    const name = `overlay-${this.overlays.length}`;
    const coordinates = [[west, north], [east, north], [east, south], [west, south]];
    map.addSource(name, { type: "image", url, coordinates });
    map.addLayer({ id: name, type: "raster", source: name, paint: { "raster-fade-duration": 0 } });
    this.overlays.push([map, name]);
  }

  clear() {
    for (const [map, name] of this.overlays.splice(0)) {
      if (map.getLayer(name)) map.removeLayer(name);
      if (map.getSource(name)) map.removeSource(name);
    }
  }

  /** Puts the border at a share of the width. */
  place(share) {
    this.state.swipe = Math.min(1, Math.max(0, share));
    const percent = 100 * this.state.swipe;
    after.style.clipPath = `inset(0 0 0 ${percent}%)`;
    swipe.style.left = `${percent}%`;
    swipe.setAttribute("aria-valuenow", String(Math.round(percent)));
  }

  listen(changed) {
    const drag = (event) => {
      const { left, width } = stage.getBoundingClientRect();
      this.place((event.clientX - left) / width);
    };
    swipe.addEventListener("pointerdown", (event) => {
      swipe.setPointerCapture(event.pointerId);
      swipe.addEventListener("pointermove", drag);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      swipe.addEventListener(end, () => {
        swipe.removeEventListener("pointermove", drag);
        changed();
      });
    }
    swipe.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 0.02;
      const moves = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, Home: -1, End: 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      this.place(this.state.swipe + moves[event.key]);
      changed();
    });
  }
}

// Drawing a hole, and having it filled.

import { ask } from "./api.js";
import { bounds, position, square } from "./pictures.js";

const sketch = document.getElementById("sketch");

/** The longest side of what is sent, in pixels. */
const MOST = 768;

/** Lets one line be drawn; gives its points on the stage, or nothing when it was given up. */
export function draw(signal) {
  return new Promise((resolve) => {
    const ratio = devicePixelRatio;
    sketch.hidden = false;
    sketch.width = sketch.clientWidth * ratio;
    sketch.height = sketch.clientHeight * ratio;
    const context = sketch.getContext("2d");
    context.scale(ratio, ratio);
    let points = [];
    const show = () => {
      context.clearRect(0, 0, sketch.width, sketch.height);
      context.beginPath();
      points.forEach(([x, y]) => context.lineTo(x, y));
      context.closePath();
      context.fillStyle = "rgb(255 213 138 / 45%)";
      context.strokeStyle = "#8a3b00";
      context.lineWidth = 2;
      context.fill();
      context.stroke();
    };
    const listeners = new AbortController();
    const end = (result) => {
      listeners.abort();
      context.clearRect(0, 0, sketch.width, sketch.height);
      sketch.hidden = true;
      resolve(result);
    };
    const listen = (name, act) => sketch.addEventListener(name, act, { signal: listeners.signal });
    listen("pointerdown", (event) => {
      sketch.setPointerCapture(event.pointerId);
      points = [[event.offsetX, event.offsetY]];
    });
    listen("pointermove", (event) => {
      if (points.length === 0) return;
      points.push([event.offsetX, event.offsetY]);
      show();
    });
    listen("pointerup", () => end(points.length > 2 ? points : undefined));
    signal.addEventListener("abort", () => end(signal.reason === "centre" ? circle() : undefined), { once: true });
  });
}

/** A circle in the middle, for those who cannot draw. */
function circle() {
  const { clientWidth, clientHeight } = sketch.parentElement;
  const radius = Math.min(clientWidth, clientHeight) / 8;
  return Array.from({ length: 40 }, (_, i) => [
    clientWidth / 2 + radius * Math.cos((i * Math.PI) / 20),
    clientHeight / 2 + radius * Math.sin((i * Math.PI) / 20),
  ]);
}

/** Fills the hole that was drawn: asks for the pictures around it, sends them, lays the answer on the map. */
export async function fill(view, source, points, modelSide) {
  const { direction, state } = view;
  const side = direction.tile_size;
  const zoom = Math.min(direction.max_zoom, Math.max(direction.min_zoom, Math.round(view.after.getZoom() + Math.log2(512 / side))));
  const ring = points.map((at) => position(view.after.unproject(at), zoom, side));
  const [xs, ys] = [ring.map(([x]) => x), ring.map(([, y]) => y)];
  const extent = Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  const length = Math.ceil(Math.max(modelSide, extent + modelSide / 4));
  if (length > MOST) throw new Error("This hole is too large; zoom out or draw a smaller one.");
  const corner = [xs, ys].map((all) => Math.round((Math.min(...all) + Math.max(...all)) / 2 - length / 2));
  const kind = `to=${direction.to}&seed=${state.seed}`;
  const given = source.originals.find((one) => one.of !== direction.to).of;
  const [picture, other] = await Promise.all([
    square(source.id, kind, corner, length, zoom, side),
    square(`${source.id}/original`, `of=${given}`, corner, length, zoom, side),
  ]);
  const mask = masked(ring, corner, length);
  const form = new FormData();
  for (const [name, canvas] of [["picture", picture], ["mask", mask], ["given", other]]) {
    form.append(name, await canvas.convertToBlob({ type: "image/png" }), `${name}.png`);
  }
  const seed = Math.floor(Math.random() * 2 ** 32);
  const answer = await ask(`v1/inpaint?as=${direction.to}&seed=${seed}`, { method: "POST", body: form });
  const blob = await answer.blob();
  view.overlay(view.after, URL.createObjectURL(blob), bounds(corner, length, zoom, side));
  return { picture, mask, result: blob };
}

function masked(ring, [left, top], length) {
  const canvas = new OffscreenCanvas(length, length);
  const context = canvas.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, length, length);
  context.beginPath();
  ring.forEach(([x, y]) => context.lineTo(x - left, y - top));
  context.closePath();
  context.fillStyle = "#fff";
  context.fill();
  return canvas;
}

// Pixels of the ground: web Mercator positions, and tiles put together on a canvas.

import { ask } from "./api.js";

/** Pixel position of a point at a zoom, with tiles of `side` pixels. */
export function position({ lng, lat }, zoom, side) {
  const world = side * 2 ** zoom;
  const sin = Math.sin((lat * Math.PI) / 180);
  return [((lng + 180) / 360) * world, (0.5 - Math.log((1 + sin) / (1 - sin)) / (4 * Math.PI)) * world];
}

/** The point at a pixel position. */
export function point([x, y], zoom, side) {
  const world = side * 2 ** zoom;
  const lat = (Math.atan(Math.sinh(Math.PI * (1 - (2 * y) / world))) * 180) / Math.PI;
  return [(x / world) * 360 - 180, lat];
}

/** West, south, east, north of a square of pixels. */
export function bounds([x, y], length, zoom, side) {
  const [west, north] = point([x, y], zoom, side);
  const [east, south] = point([x + length, y + length], zoom, side);
  return [west, south, east, north];
}

/** A square of pixels of some tiles on a canvas; grey where there are none. */
export async function square(path, query, [left, top], length, zoom, side) {
  const canvas = new OffscreenCanvas(length, length);
  const context = canvas.getContext("2d");
  context.fillStyle = "#808080";
  context.fillRect(0, 0, length, length);
  const last = (start) => Math.floor((start + length - 1) / side);
  const parts = [];
  for (let row = Math.floor(top / side); row <= last(top); row += 1) {
    for (let column = Math.floor(left / side); column <= last(left); column += 1) {
      parts.push(tile(`${path}/${zoom}/${column}/${row}.png?${query}`).then((picture) => {
        if (picture) context.drawImage(picture, column * side - left, row * side - top);
      }));
    }
  }
  await Promise.all(parts);
  return canvas;
}

async function tile(path) {
  try {
    return await createImageBitmap(await (await ask(path)).blob());
  } catch (error) {
    if (error.status === 404) return undefined;
    throw error;
  }
}

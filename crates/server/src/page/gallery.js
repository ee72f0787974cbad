// Several seeds of one tile beside each other.

import { base } from "./api.js";
import { position } from "./pictures.js";

const dialog = document.getElementById("gallery");
const samples = document.getElementById("samples");
const COUNT = 6;

document.getElementById("gallery-close").addEventListener("click", () => dialog.close());

/** Shows samples of the tile in the middle; `choose` is told the seed of the one that is clicked. */
export function open(view, source, choose) {
  const { direction, state } = view;
  const side = direction.tile_size;
  const zoom = Math.min(direction.max_zoom, Math.max(direction.min_zoom, Math.round(view.after.getZoom() + Math.log2(512 / side))));
  const [column, row] = position(view.after.getCenter(), zoom, side).map((pixels) => Math.floor(pixels / side));
  samples.replaceChildren();
  for (let index = 0n; index < BigInt(COUNT); index += 1n) {
    const seed = String(BigInt.asUintN(64, BigInt(state.seed) + index));
    const picture = new Image();
    picture.alt = `Sample with seed ${seed}`;
    picture.src = `${base}${source.id}/${zoom}/${column}/${row}.png?to=${direction.to}&seed=${seed}`;
    const button = document.createElement("button");
    button.type = "button";
    button.append(picture, `seed ${seed}`);
    button.addEventListener("click", () => {
      dialog.close();
      choose(seed);
    });
    samples.append(button);
  }
  dialog.showModal();
}

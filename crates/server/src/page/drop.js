// Pictures of one's own, and results beside the map.

import { ask } from "./api.js";

const results = document.getElementById("results");

/** Shows a pair of pictures with a border that can be moved; the newest comes first. */
export function show(caption, before, made) {
  const figure = document.createElement("figure");
  figure.className = "result";
  const pair = document.createElement("div");
  pair.className = "pair";
  const pictures = [before, made].filter(Boolean).map(([url, alt]) => {
    const picture = new Image();
    [picture.src, picture.alt] = [url, alt];
    return picture;
  });
  pair.append(...pictures);
  figure.append(pair);
  if (pictures.length === 2) {
    const border = document.createElement("input");
    Object.assign(border, { type: "range", min: 0, max: 100, value: 50 });
    border.setAttribute("aria-label", "Border between before and after");
    const place = () => { pictures[1].style.clipPath = `inset(0 0 0 ${border.value}%)`; };
    border.addEventListener("input", place);
    place();
    figure.append(border);
  }
  const about = document.createElement("figcaption");
  about.textContent = `Synthetic. ${caption} `;
  const link = document.createElement("a");
  Object.assign(link, { href: made[0], download: "earthmapper-synthetic.png", textContent: "Download" });
  about.append(link);
  figure.append(about);
  results.prepend(figure);
}

/** Translates a file and shows the result; a GeoTIFF is laid on the map as well. */
export async function translate(view, file) {
  const { direction, state } = view;
  const isTiff = /\.tiff?$/i.test(file.name) || file.type === "image/tiff";
  const type = file.type || (isTiff ? "image/tiff" : "application/octet-stream");
  const answer = await ask(`v1/translate?to=${direction.to}&seed=${state.seed}&format=json`, {
    method: "POST",
    headers: { "Content-Type": type },
    body: file,
  });
  const made = await answer.json();
  const [first] = made.results;
  show(`${file.name} as ${direction.to}, seed ${first.seed}.`, isTiff ? undefined : [URL.createObjectURL(file), "Before"], [first.picture, "After"]);
  if (made.bounds) {
    const [west, south, east, north] = made.bounds;
    view.overlay(view.after, first.picture, made.bounds);
    view.after.fitBounds([[west, south], [east, north]], { animate: false, padding: 30 });
  }
  return made;
}

/** Takes files that are dropped or chosen. */
export function listen(take) {
  const field = document.getElementById("file");
  const area = document.getElementById("drop");
  field.addEventListener("change", () => {
    if (field.files.length > 0) take(field.files[0]);
    field.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      area.classList.add("over");
    });
  }
  document.addEventListener("dragleave", () => area.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    area.classList.remove("over");
    if (event.dataTransfer.files.length > 0) take(event.dataTransfer.files[0]);
  });
}

// The page: what is chosen, and what happens then.

import { ask, attempt, save, say } from "./api.js";
import * as area from "./area.js";
import * as drop from "./drop.js";
import * as gallery from "./gallery.js";
import * as hole from "./hole.js";
import { read, write } from "./state.js";
import { View } from "./view.js";

const element = (id) => document.getElementById(id);
const words = { map: "map", satellite: "photograph" };

const state = { seed: "0", swipe: 0.5, o: 1, u: false, ...read() };
const catalog = await attempt("Loading …", async () => (await ask("catalog")).json());
if (!catalog) throw new Error("no catalogue");

let source;
let tool;
const view = new View(state, () => write(state));
await view.loaded;

/** Shows a source and a direction, or the nearest that there is. */
function choose(id, to, keepsPlace) {
  source = catalog.sources.find((one) => one.id === id) ?? catalog.sources[0];
  const direction = source.directions.find((one) => one.to === to) ?? source.directions[0];
  if (!direction) {
    say("The pixels of this source are too far from the model's.");
    return;
  }
  Object.assign(state, { source: source.id, to: direction.to });
  element("source").value = source.id;
  const from = direction.to === "map" ? "satellite" : "map";
  element("direction").textContent = `${words[from]} → ${words[direction.to]}`;
  element("direction").disabled = source.directions.length < 2;
  element("before-name").textContent = words[from];
  element("after-name").textContent = words[direction.to];
  view.show(source, direction);
  view.fit(direction, !keepsPlace);
  element("clear").hidden = true;
  write(state);
}

function seed(value) {
  state.seed = /^[0-9]{1,20}$/.test(value) && BigInt(value) < 2n ** 64n ? String(BigInt(value)) : "0";
  element("seed").value = state.seed;
  choose(source.id, state.to, true);
}

/** Lets a tool be used until it has done its work, or is put away. */
async function use(name, work) {
  const before = tool;
  before?.stop.abort("away");
  if (before?.name === name) return;
  const mine = { name, stop: new AbortController() };
  tool = mine;
  element(name).setAttribute("aria-pressed", "true");
  element("hint").hidden = false;
  element("hint").textContent = name === "hole"
    ? "Draw around what is to be made anew. Enter: a hole in the middle. Esc: stop."
    : "Click where a photograph and its map are to be invented. Enter: in the middle. Esc: stop.";
  try {
    await work(mine.stop.signal);
  } finally {
    element(name).setAttribute("aria-pressed", "false");
    if (tool === mine) {
      tool = undefined;
      element("hint").hidden = true;
    }
  }
}

async function makeHole(signal) {
  const points = await hole.draw(signal);
  if (!points) return;
  const filled = await attempt("Filling the hole …", () => hole.fill(view, source, points, catalog.model.side));
  if (!filled) return;
  element("clear").hidden = false;
  // For those who look at the page from outside.
  globalThis.earthmapper.filled = filled;
}

async function generateSomewhere(signal) {
  const place = await new Promise((resolve) => {
    const click = (event) => resolve(event.lngLat);
    const maps = [view.before, view.after];
    maps.forEach((map) => map.once("click", click));
    signal.addEventListener("abort", () => {
      maps.forEach((map) => map.off("click", click));
      resolve(signal.reason === "centre" ? view.after.getCenter() : undefined);
    }, { once: true });
  });
  if (!place) return;
  const random = Math.floor(Math.random() * 2 ** 32);
  const path = `v1/generate?lat=${place.lat}&lon=${place.lng}&seed=${random}`;
  const made = await attempt("Inventing …", async () => (await ask(path, { method: "POST" })).json());
  if (!made) return;
  const picture = (kind) => made.results.find((one) => one.kind === kind);
  const metres = catalog.model.metres_per_pixel ?? 1;
  const half = (picture("map").width * metres) / 2 / 111_320;
  const across = half / Math.cos((place.lat * Math.PI) / 180);
  const bounds = [place.lng - across, place.lat - half, place.lng + across, place.lat + half];
  const [from, to] = [state.to === "map" ? "satellite" : "map", state.to];
  view.overlay(view.before, picture(from).picture, bounds);
  view.overlay(view.after, picture(to).picture, bounds);
  drop.show(`Invented, seed ${random}.`, [picture(from).picture, words[from]], [picture(to).picture, words[to]]);
  element("clear").hidden = false;
}

/** The result as it is on the screen, with a word about what it is in a corner. */
async function download() {
  const shown = view.after.getCanvas();
  const canvas = new OffscreenCanvas(shown.width, shown.height);
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0);
  const note = `Synthetic, EarthMapper ${catalog.model.name}, seed ${state.seed}`;
  context.font = "16px sans-serif";
  const width = context.measureText(note).width + 16;
  context.fillStyle = "#ffe9b8";
  context.fillRect(0, shown.height - 28, width, 28);
  context.fillStyle = "#5a2600";
  context.fillText(note, 8, shown.height - 9);
  save(await canvas.convertToBlob({ type: "image/png" }), `earthmapper-${source.id}-${state.to}-synthetic.png`);
}

async function copyLink() {
  write(state);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.", 3);
  } catch {
    say("The link is in the address bar.", 5);
  }
}

const acts = {
  direction: () => choose(source.id, state.to === "map" ? "satellite" : "map", true),
  reroll: () => seed(String(Math.floor(Math.random() * 2 ** 32))),
  "gallery-open": () => gallery.open(view, source, seed),
  hole: () => use("hole", makeHole),
  generate: () => use("generate", generateSomewhere),
  clear: () => { view.clear(); element("clear").hidden = true; },
  download: () => attempt("", download),
  link: copyLink,
  area: () => attempt("Making the tiles of this view …", () => area.make(view, source)),
  "panel-toggle": () => {
    const isClosed = element("panel").classList.toggle("closed");
    element("panel-toggle").setAttribute("aria-expanded", String(!isClosed));
    view.before.resize();
    view.after.resize();
  },
};
for (const [id, act] of Object.entries(acts)) element(id).addEventListener("click", act);

const keys = { d: "direction", r: "reroll", g: "gallery-open", h: "hole", n: "generate", u: "uncertainty" };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tool?.stop.abort("away");
  const isTyping = event.target.matches("select, input:not([type=range], [type=checkbox], [type=file])");
  if (event.key === "Enter" && tool && !isTyping) {
    event.preventDefault();
    tool.stop.abort("centre");
    return;
  }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || element("gallery").open) return;
  const id = keys[event.key.toLowerCase()];
  if (id && !element(id).disabled) element(id).click();
});

for (const one of catalog.sources) element("source").append(new Option(one.name, one.id));
element("source").addEventListener("change", (event) => choose(event.target.value, state.to, false));
element("opacity").value = state.o;
element("opacity").addEventListener("input", (event) => { view.opacity(Number(event.target.value)); write(state); });
element("uncertainty").checked = state.u;
element("uncertainty").addEventListener("change", (event) => { view.uncertainty(event.target.checked); write(state); });
element("seed").value = state.seed;
element("seed").addEventListener("change", (event) => seed(event.target.value));
element("token-section").hidden = !catalog.token_needed;
element("token").value = sessionStorage.getItem("token") ?? "";
element("token").addEventListener("change", (event) => sessionStorage.setItem("token", event.target.value));
drop.listen((file) => attempt(`Translating ${file.name} …`, () => drop.translate(view, file)));

globalThis.earthmapper = { view, state, catalog };
choose(state.source, state.to, state.z !== undefined);
document.documentElement.dataset.ready = "yes";

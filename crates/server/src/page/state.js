// What is shown, as it stands in the part of the address behind #: a link shows another person the same.

const numbers = { z: 2, lat: 6, lon: 6, swipe: 3, o: 2 };

/** Reads the address; what is missing or senseless is left out. */
export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = {};
  for (const name of Object.keys(numbers)) {
    const value = Number.parseFloat(given.get(name) ?? "");
    if (Number.isFinite(value)) state[name] = value;
  }
  if (/^[0-9]{1,20}$/.test(given.get("seed") ?? "")) state.seed = given.get("seed");
  if (["map", "satellite"].includes(given.get("to"))) state.to = given.get("to");
  if (/^[a-z0-9_-]{1,64}$/.test(given.get("s") ?? "")) state.source = given.get("s");
  state.u = given.get("u") === "1";
  return state;
}

/** Writes the address without a new entry in the history. */
export function write(state) {
  const written = new URLSearchParams({ s: state.source, to: state.to, seed: state.seed });
  for (const [name, digits] of Object.entries(numbers)) {
    if (Number.isFinite(state[name])) written.set(name, Number(state[name].toFixed(digits)));
  }
  if (state.u) written.set("u", "1");
  history.replaceState(null, "", `#${written}`);
}

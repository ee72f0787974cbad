// All tiles of the view into one file.

import { ask, base, say } from "./api.js";

const box = document.getElementById("job");
const bar = document.getElementById("job-progress");
let running;

document.getElementById("job-cancel").addEventListener("click", async () => {
  if (running) await ask(`v1/jobs/${running}`, { method: "DELETE" }).catch((error) => say(error.message, 8));
});

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });

/** Asks for a job over the view, follows it, and takes its result. */
export async function make(view, source) {
  if (running) throw new Error("One file after the other, please.");
  const { direction, state } = view;
  const bounds = view.after.getBounds();
  const zoom = Math.min(direction.max_zoom, Math.max(direction.min_zoom, Math.round(view.after.getZoom() + Math.log2(512 / direction.tile_size))));
  // The seed may have more digits than a number of JavaScript.
  const request = `{"source":${JSON.stringify(source.id)},"to":"${direction.to}","seed":${state.seed},` +
    `"bbox":[${bounds.getWest()},${bounds.getSouth()},${bounds.getEast()},${bounds.getNorth()}],` +
    `"min_zoom":${direction.min_zoom},"max_zoom":${zoom}}`;
  const headers = { "Content-Type": "application/json" };
  let job = await (await ask("v1/jobs", { method: "POST", headers, body: request })).json();
  running = job.id;
  box.hidden = false;
  try {
    while (["waiting", "running"].includes(job.state)) {
      await pause(1);
      job = await (await ask(`v1/jobs/${job.id}`)).json();
      bar.value = job.tiles > 0 ? job.made / job.tiles : 0;
    }
  } finally {
    running = undefined;
    box.hidden = true;
  }
  if (job.state !== "done") throw new Error(job.state === "cancelled" ? "Stopped." : "The tiles could not be made.");
  location.href = `${base}${job.result}`;
  return job;
}

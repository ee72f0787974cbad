// Talking with the server.

/** The address of the server, with a slash at its end; it may lie below a path. */
export const base = new URL(".", document.baseURI).href;

const status = document.getElementById("status");
let calm;

/** Says something at the lower edge of the map, for some seconds or until something else is said. */
export function say(text, seconds = 0) {
  clearTimeout(calm);
  status.textContent = text;
  if (seconds > 0) calm = setTimeout(() => { status.textContent = ""; }, 1000 * seconds);
}

/** Asks the server; gives the answer or throws an error whose text is for people. */
export async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let response;
  try {
    response = await fetch(base + path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const error = new Error(problem.error ?? `The server answers ${response.status}.`);
  error.status = response.status;
  error.after = Number(response.headers.get("Retry-After") ?? 0);
  throw error;
}

/** Runs something that may fail, and says so when it does. */
export async function attempt(doing, work) {
  say(doing);
  try {
    const done = await work();
    say("");
    return done;
  } catch (error) {
    say(error.message, 8);
    return undefined;
  }
}

/** Offers bytes as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

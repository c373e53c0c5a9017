// What the page asks the server, and how the server says no.

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function answerOf(response) {
  if (response.status === 204) return { status: 204 };
  if (response.ok) return { status: response.status, ...(await response.json()) };
  const problem = await response.json().catch(() => ({}));
  throw new Refused(response.status, problem.detail ?? `The server answered ${response.status}.`);
}

async function ask(address, options) {
  try {
    return await answerOf(await fetch(address, options));
  } catch (error) {
    if (error instanceof TypeError) throw new Refused(0, "The server does not answer. Is vggsearch serve still running?");
    throw error;
  }
}

export function withParameters(address, parameters) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) given.append(name, value);
  }
  return given.size ? `${address}?${given}` : address;
}

export function get(address, parameters = {}, signal = undefined) {
  return ask(withParameters(address, parameters), { signal });
}

export function post(address, body, signal = undefined) {
  if (body instanceof FormData) return ask(address, { method: "POST", body, signal });
  return ask(address, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal });
}

export function stopJob(job) {
  return ask(`/api/jobs/${job}`, { method: "DELETE" });
}

// Resolves with the result of a job; `onProgress` is told how far it is.
export function followJob(job, onProgress) {
  return new Promise((resolve, reject) => {
    const events = new EventSource(`/api/jobs/${job}`);
    const end = (settle, value) => {
      events.close();
      settle(value);
    };
    events.addEventListener("progress", (event) => onProgress(JSON.parse(event.data)));
    events.addEventListener("result", (event) => end(resolve, JSON.parse(event.data)));
    events.addEventListener("error", (event) => {
      if (event.data) end(reject, new Refused(409, JSON.parse(event.data).detail));
      else if (events.readyState === EventSource.CLOSED) end(reject, new Refused(0, "The connection to the server is lost."));
    });
  });
}

// What the server cannot give: see Library in serve/library.py. The style sheet hides what needs it.
export const missing = new Set(document.documentElement.dataset.missing.split(" "));

// Thumbnails come in three sizes: the smallest that is large enough for the screen. Without the photos, there are names.
export function thumbnail(photo, pixels) {
  if (missing.has("photos")) return "";
  const wanted = pixels * devicePixelRatio;
  return `/api/photos/${photo}/thumbnail?size=${[160, 320].find((size) => size >= wanted) ?? 640}`;
}

// The path of a published photo is its id, in base64.
export function pathOf(id) {
  const bytes = atob(id.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(bytes, (each) => each.charCodeAt(0)));
}

export function original(photo) {
  return `/api/photos/${photo}/original`;
}

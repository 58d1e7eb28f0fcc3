// Requests to the gateway that serves this page.

export class Problem extends Error {
  /** An error of the gateway: what happened, and what to do. */
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.hint = problem.hint ?? "";
  }
}

/** The answer of a request as JSON; null where it has none. Throws Problem. */
export async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...csrf(), ...(options.headers ?? {}) } });
  if (!response.ok) throw new Problem(response.status, await response.json().catch(() => ({ title: response.statusText })));
  return response.status === 204 ? null : response.json();
}

/** Change something. */
export const post = (path) => ask(path, { method: "POST" });
export const remove = (path) => ask(path, { method: "DELETE" });

/** Send a file as a job, with `onProgress(sent, total)`; the job. Throws Problem. */
export function upload(path, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(csrf())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* a proxy answered */ }
      if (request.status < 300) resolve(answer);
      else reject(new Problem(request.status, answer));
    });
    request.addEventListener("error", () => reject(new Problem(0, { detail: "the gateway cannot be reached" })));
    signal.addEventListener("abort", () => { request.abort(); reject(new Problem(0, { detail: "stopped" })); });
    request.send(file);
  });
}

/** Follow the events of a job until it is over, or until the signal. `on` is called with a kind and its data. */
export function follow(job, on, signal) {
  const source = new EventSource(`/api/v1/jobs/${job}/events`);
  for (const kind of ["progress", "part", "failure", "text", "file", "done"])
    source.addEventListener(kind, (event) => {
      if (kind === "done") source.close();
      on(kind, JSON.parse(event.data));
    });
  signal.addEventListener("abort", () => source.close());
}

function csrf() {
  const found = /(?:^|; )rigflow_csrf=([^;]*)/.exec(document.cookie);
  return found ? { "X-Rigflow-CSRF": found[1] } : {};
}

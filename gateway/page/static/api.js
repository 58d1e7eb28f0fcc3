// Requests to the gateway that serves this page.
import { isAway, lost } from "/page/connection.js";
import { t } from "/page/language.js";

export class Problem extends Error {
  /** An error of the gateway: what happened, and what to do. `own`: the text is the page's, in its language. */
  constructor(status, problem, own = false) {
    super(problem.detail || problem.title || `HTTP ${status}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.hint = problem.hint ?? "";
    this.own = own;
  }
}

/** The answer of a request as JSON; null where it has none. Throws Problem. */
export async function ask(path, options = {}) {
  const response = await got(path, options);
  return response.status === 204 ? null : response.json();
}

/** The text of a file, at most that many bytes. Throws Problem. */
export async function bytes(path, most, signal) {
  const response = await got(path, { headers: { Range: `bytes=0-${most - 1}` }, signal });
  return response.arrayBuffer();
}

export const text = async (path, most, signal) => new TextDecoder().decode(await bytes(path, most, signal));

async function got(path, options) {
  const headers = { ...csrf(), ...(options.headers ?? {}) };
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    lost();
    throw new Problem(0, { detail: t("away") }, true);
  });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ title: response.statusText }));
  if (isAway(response.status, problem.code)) lost();
  throw new Problem(response.status, problem);
}

/** Change something. */
export const post = (path) => ask(path, { method: "POST" });
export const remove = (path) => ask(path, { method: "DELETE" });

/** Send a file, with `onProgress(share)`; the answer. Throws Problem. */
export function upload(path, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(csrf())) request.setRequestHeader(name, value);
    request.setRequestHeader("Content-Type", file.type || "application/octet-stream");
    request.upload.addEventListener("progress", (event) => onProgress(event.total ? event.loaded / event.total : 0));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* a proxy answered */ }
      if (request.status < 300) resolve(answer);
      else reject(new Problem(request.status, answer));
    });
    request.addEventListener("error", () => { lost(); reject(new Problem(0, { detail: t("away") }, true)); });
    signal?.addEventListener("abort", () => { request.abort(); reject(new Problem(-1, { detail: t("stopped") }, true)); });
    request.send(file);
  });
}

function csrf() {
  const found = /(?:^|; )rigflow_csrf=([^;]*)/.exec(document.cookie);
  return found ? { "X-Rigflow-CSRF": found[1] } : {};
}

// Files on their way to the fleet, one after the other; they go on while other views are shown.
import { upload } from "/page/api.js";
import { keep } from "/page/given.js";
import { announce } from "/page/dom.js";
import { t } from "/page/language.js";

const KEPT = 200;
export const sent = []; // {file, query, share, job, problem, stop}, the newest first
let changed = () => {}, busy = false;

/** Call `then` whenever a file got further, until the signal. */
export function watch(then, signal) {
  changed = then;
  signal.addEventListener("abort", () => { changed = () => {}; });
}

/** Send files as jobs; `query` are the parameters of each. */
export function send(files, query) {
  for (const file of files) sent.unshift({ file, query: new URLSearchParams(query), share: 0, job: null, problem: null, stop: new AbortController() });
  sent.splice(KEPT);
  changed();
  go();
}

/** Stop one that is on its way or waits, or leave out one that is over. */
export function stop(place) {
  const one = sent[place];
  if (one.job || one.problem) sent.splice(place, 1);
  else one.stop.abort();
  changed();
  go();
}

async function go() {
  if (busy) return;
  busy = true;
  for (let next = waiting(); next; next = waiting()) await one(next);
  busy = false;
}

const waiting = () => {
  for (const each of sent) if (!each.job && !each.problem && each.stop.signal.aborted) each.problem = { message: t("stopped"), own: true };
  return sent.findLast((each) => !each.job && !each.problem);
};

async function one(each) {
  each.query.set("name", each.file.name);
  try {
    each.job = await upload(`/api/v1/jobs?${each.query}`, each.file, (share) => { each.share = share; changed(); }, each.stop.signal);
    keep(each.job.id, each.file);
    announce(t("sent", { name: each.file.name, id: each.job.id }));
  } catch (problem) {
    each.problem = problem;
  }
  changed();
}

window.addEventListener("beforeunload", (event) => { if (busy) event.preventDefault(); });

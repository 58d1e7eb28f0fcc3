// One job: its progress as it happens, what failed, its text as it is written, and its results.
import { ask } from "/page/api.js";
import { stream } from "/page/connection.js";
import { announce, english, facts, h, raw, redraw } from "/page/dom.js";
import { clock, moment, number, size, took } from "/page/format.js";
import { icon } from "/page/icons.js";
import { many, t } from "/page/language.js";
import { actions, badge, isOlder, jobActs, progress } from "/page/jobs.js";
import { attempt } from "/page/main.js";
import { results, withoutFiles } from "/page/results.js";

const KINDS = ["progress", "part", "failure", "text", "file", "done"];

export async function job(id, signal, acts) {
  const path = `/api/v1/jobs/${encodeURIComponent(id)}`;
  let view = await ask(path, { signal }), retries = false;
  const head = h("div"), written = h("div"), failed = h("div"), files = h("div");
  const draw = () => {
    redraw(head, ...top(view, retries));
    failed.replaceChildren(...failures(view));
    if (!view.ended_at) redraw(files, h("h2", {}, t("results")), h("p", { class: "soft" }, t(withoutFiles(view))));
  };
  const look = () => attempt(async () => {
    retries = view.state === "failed" && (await ask(`/api/v1/dead-letters?job=${encodeURIComponent(id)}&limit=1`, { signal })).letters.length > 0;
    if (!signal.aborted) draw();
  });
  const texts = new Map();
  const collect = () => attempt(async () => {
    await look();
    const made = await results(view, signal, acts);
    if (signal.aborted) return;
    files.replaceChildren(h("h2", {}, t("results")), ...made);
    if (view.ended_at) written.replaceChildren();
  }, files);
  let listening = new AbortController();
  const again = () => attempt(async () => {
    try { view = await ask(path, { signal }); } catch (problem) {
      if (problem.status === 404) { location.hash = "jobs"; return; }
      throw problem;
    }
    draw();
    listen();
  });
  const on = (kind, data) => {
    if (kind === "progress") { if (!isOlder(data, view)) { view = data; draw(); } }
    else if (kind === "text") write(texts, data, written);
    else if (kind === "done") { ended(data); return false; }
    return true;
  };
  const ended = async (data) => {
    const fresh = (await attempt(() => ask(path, { signal }))) ?? view;
    const { state, failures: reasons, more_failures: more, notes, missing_s } = data;
    const ended_at = fresh.ended_at ?? fresh.updated_at; // its manifest says so a moment later
    view = { ...fresh, ended_at, state, reasons, failures: reasons.length + more, notes, missing_s };
    if (signal.aborted) return;
    draw();
    announce(t("jobState", { name: view.name, state: t(view.state) }));
    await collect();
  };
  const listen = () => {
    listening.abort();
    listening = new AbortController();
    stream(`${path}/events`, KINDS, on, () => attempt(() => ask(path, { signal })), listening.signal);
  };
  signal.addEventListener("abort", () => listening.abort());
  Object.assign(acts, jobActs(again));
  draw();
  if (view.ended_at) collect(); // of a job with thousands of files the events are thousands, too
  else { listen(); look(); }
  return [h("p", { class: "back" }, h("a", { href: "#jobs" }, icon("left"), t("allJobs"))), head, failed, written, files];
}

function top(view, retries) {
  const missing = view.missing_s.length ? view.missing_s.map(([from, to]) => `${clock(from)}–${clock(to)}`).join(", ") : null;
  return [
    h("div", { class: "bar" }, h("h1", {}, raw(view.name || view.id)), badge(view), h("div", { class: "row push" }, actions(view, retries))),
    h("div", { class: "card" }, view.ended_at || view.state === "failed" ? null : progress(view), facts([
      [t("pipeline"), h("a", { href: `#submit/${encodeURIComponent(view.pipeline)}` }, raw(view.pipeline))],
      [t("begun"), moment(view.created_at)],
      [t("took"), view.ended_at ? took(view.ended_at - view.created_at) : null],
      [t("duration"), view.duration_s ? clock(view.duration_s) : null],
      [t("frames"), view.frames ? number(view.frames) : null],
      [t("lost"), view.frames_lost ? number(view.frames_lost) : null],
      [t("input"), view.input_bytes ? size(view.input_bytes) : null],
      [t("missing"), missing],
      [t("id"), h("code", { class: "id", translate: "no" }, view.id)],
    ])),
  ];
}

function failures(view) {
  const notes = (view.notes ?? []).map((note) => h("p", { class: "note" }, english(note)));
  if (!view.reasons.length) return notes;
  const more = view.failures - view.reasons.length;
  return [h("h2", {}, t("failures")), h("div", { class: "card" }, h("ul", { class: "plain" }, view.reasons.map((reason) => english(reason, "li"))),
    more > 0 ? h("p", { class: "soft" }, many("moreFailures", more)) : null), ...notes];
}

/** New text of an answer; what came before a reconnection may come again. */
function write(texts, event, box) {
  const place = `${event.segment}.${event.part}.${event.row}`, before = texts.get(place);
  if (before && (event.again < before.again || (event.again === before.again && event.number <= before.number))) return;
  const text = (before && before.again === event.again ? before.text : "") + event.text;
  texts.set(place, { again: event.again, number: event.number, text });
  box.replaceChildren(h("h2", {}, t("written")), h("div", { class: "card" }, h("pre", { translate: "no", dir: "auto" }, [...texts.values()].map((each) => each.text).join("\n\n"))));
}

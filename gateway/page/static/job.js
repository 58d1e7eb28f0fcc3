// One job: its progress as it happens, what failed, its text as it is written, and its results.
import { ask, follow } from "/page/api.js";
import { announce, clock, h, size } from "/page/dom.js";
import { t } from "/page/language.js";
import { actions, bar, moment } from "/page/jobs.js";
import { attempt } from "/page/main.js";
import { results } from "/page/results.js";

export async function job(id, signal) {
  const path = `/api/v1/jobs/${encodeURIComponent(id)}`;
  let view = await ask(path);
  const head = h("div"), written = h("div"), failed = h("div"), files = h("div");
  const draw = () => {
    const facts = [
      [t("id"), h("span", { class: "id" }, view.id)], [t("pipeline"), view.pipeline], [t("begun"), moment(view.created_at)],
      [t("duration"), view.duration_s ? clock(view.duration_s) : null], [t("frames"), view.frames ? view.frames.toLocaleString() : null],
      [t("lost"), view.frames_lost || null], [t("input"), view.input_bytes ? size(view.input_bytes) : null],
      [t("missing"), view.missing_s.length ? view.missing_s.map(([from, to]) => `${clock(from)} – ${clock(to)}`).join(", ") : null],
    ].filter(([, value]) => value !== null);
    head.replaceChildren(
      h("div", { class: "row end" }, h("h1", {}, view.name || view.id), h("div", { class: "row" }, actions(view, again))),
      h("div", { class: "card" }, h("p", {}, h("span", { class: `state ${view.state}` }, t(view.state)), " "), bar(view), h("dl", {}, facts.map(([title, value]) => [h("dt", {}, title), h("dd", {}, value)]))),
    );
    failed.replaceChildren(...(view.reasons.length ? [h("h2", {}, t("failures")), h("div", { class: "card" }, h("ul", {}, view.reasons.map((reason) => h("li", {}, reason))))] : []));
  };
  const again = () => attempt(async () => {
    try { view = await ask(path); } catch (problem) { if (problem.status === 404) { location.hash = "jobs"; return; } throw problem; }
    draw();
    listen();
  });
  const texts = new Map();
  const show = (event) => {
    const place = `${event.segment}.${event.part}.${event.row}`, before = texts.get(place);
    if (before && event.again < before.again) return;
    const text = (before && before.again === event.again ? before.text : "") + event.text;
    texts.set(place, { again: event.again, text });
    written.replaceChildren(h("div", { class: "card" }, h("pre", {}, [...texts.values()].map((each) => each.text).join("\n\n"))));
  };
  const collect = () => attempt(async () => {
    const listed = (await ask(`${path}/results`)).files;
    if (signal.aborted) return;
    files.replaceChildren(h("h2", {}, t("results")), ...(listed.length ? await results(view, listed) : [h("p", { class: "note" }, t("noFiles"))]));
    if (listed.length) written.replaceChildren();
  });
  let listening = new AbortController();
  const listen = () => {
    listening.abort();
    listening = new AbortController();
    follow(view.id, (kind, data) => {
      if (kind === "progress") { view = data; draw(); }
      else if (kind === "text") show(data);
      else if (kind === "done") {
        view = { ...view, state: data.state, progress: data.state === "done" ? 1 : view.progress, reasons: data.failures, frames: data.frames, missing_s: data.missing_s };
        draw();
        announce(t("jobState", { name: view.name, state: t(view.state) }));
        collect();
      }
    }, listening.signal);
  };
  signal.addEventListener("abort", () => listening.abort());
  draw();
  await collect();
  listen();
  return [h("p", {}, h("a", { href: "#jobs" }, `← ${t("back")}`)), head, failed, written, files];
}

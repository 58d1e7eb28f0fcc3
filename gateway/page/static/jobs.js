// Jobs and how far they are, the newest first; the list is read again when the gateway says that it changed.
import { ask, post, remove } from "/page/api.js";
import { repeat, stream } from "/page/connection.js";
import { sure } from "/page/dialog.js";
import { announce, button, english, h, nothing, raw, redraw, table } from "/page/dom.js";
import { ending, moment, number, percent, took } from "/page/format.js";
import { sentPicture } from "/page/given.js";
import { icon, iconOf } from "/page/icons.js";
import { many, t } from "/page/language.js";
import { attempt } from "/page/main.js";

const STATES = ["publishing", "published", "done", "failed", "cancelled"];
const PAGE = 50, LETTERS = 1000, APART_MS = 1000, PROGRESS_MS = 2000, TYPED_MS = 250;
let state = "", name = "";

export async function jobs(_, signal, acts) {
  const list = h("div"), count = h("span", { class: "soft" });
  const letters = lettersOf(signal);
  let cursors = [""], running = false, readAt = 0, later = 0;
  const read = async () => {
    readAt = Date.now();
    await attempt(async () => {
      const query = new URLSearchParams({ limit: PAGE, cursor: cursors.at(-1), name });
      if (state) query.append("state", state);
      const page = await ask(`/api/v1/jobs?${query}`, { signal });
      const retries = await letters(page.jobs);
      if (signal.aborted) return;
      running = page.jobs.some(isRunning);
      count.textContent = page.total ? many("jobsCount", page.total) : "";
      list.querySelector(":scope > .problem")?.remove();
      redraw(list, ...(page.jobs.length ? [rows(page.jobs, retries), pages(page, cursors)] : [empty()]));
    }, list);
  };
  const soon = () => {
    clearTimeout(later);
    later = setTimeout(read, Math.max(0, readAt + APART_MS - Date.now()));
  };
  const first = () => { cursors = [""]; return read(); };
  let typed = 0;
  const find = h("input", { type: "search", id: "find", value: name, placeholder: t("findName"), "aria-label": t("findName"), oninput: (event) => {
    name = event.target.value;
    clearTimeout(typed);
    typed = setTimeout(first, TYPED_MS);
  } });
  const choice = h("select", { "aria-label": t("state"), onchange: (event) => { state = event.target.value; first(); } },
    h("option", { value: "" }, t("all")), STATES.map((each) => h("option", { value: each, selected: each === state }, t(each))));
  Object.assign(acts, jobActs(() => read()), {
    older: (element) => { cursors.push(element.dataset.cursor); read(); },
    newer: () => { cursors.pop(); read(); },
  });
  await read();
  stream("/api/v1/changes", ["jobs"], soon, read, signal);
  repeat(async () => { if (running) await read(); }, PROGRESS_MS, signal);
  signal.addEventListener("abort", () => { clearTimeout(later); clearTimeout(typed); });
  return [h("div", { class: "bar" }, h("h1", {}, t("jobs")), count, h("div", { class: "row push" }, find, choice)), list];
}

export const isRunning = (view) => view.state === "publishing" || view.state === "published";

/** Whether a view of a job was made before another one: events of the beginning come again to who listens later. */
export function isOlder(view, known) {
  if (view.generation !== known.generation) return view.generation < known.generation;
  if (known.ended_at) return !view.ended_at;
  return view.segments_done < known.segments_done || (view.segments_done === known.segments_done && isRunning(view) && !isRunning(known));
}

function empty() {
  if (state || name) return nothing(icon("search"), t("noneSuch"));
  return nothing(icon("jobs"), t("noJobs"), h("p", {}, h("a", { class: "button", href: "#submit" }, t("submit"))));
}

function pages(page, cursors) {
  if (!page.next && cursors.length < 2) return null;
  const from = (cursors.length - 1) * PAGE;
  return h("nav", { class: "row end", "aria-label": t("pages") },
    button("newer", `← ${t("newer")}`, { disabled: cursors.length < 2 }),
    h("span", { class: "soft" }, t("pageOf", { from: number(from + 1), to: number(from + page.jobs.length), total: number(page.total) })),
    button("older", `${t("older")} →`, { disabled: !page.next, values: { cursor: page.next ?? "" } }));
}

/** A state as a word with a dot of its colour. */
export const badge = (view) => h("span", { class: `state ${view.state}` }, t(view.state));

/** How far a job is: a bar and its number, or why it failed. */
export function progress(view) {
  if (view.state === "failed") return english(view.reasons[0] ?? "", "span", { class: "reason", title: view.reasons[0] ?? null });
  if (view.state === "cancelled") return "";
  if (view.ended_at) return h("span", { class: "soft" }, t("tookTime", { time: took(view.ended_at - view.created_at) }));
  if (view.progress === null) return h("progress", { max: 1, "aria-label": t("loading") });
  const whole = Math.floor(view.progress * 100);
  return h("span", { class: "progress" }, h("progress", { max: 100, value: whole, "aria-label": t("percent", { percent: whole }) }), h("span", { "aria-hidden": "true" }, percent(whole / 100)));
}

/** A small picture of a job, or an icon of what its file is. */
export function thumb(view) {
  const source = view.thumbnail ?? sentPicture(view.id);
  if (source) return h("img", { class: "thumb", src: source, alt: "", loading: "lazy", decoding: "async" });
  return icon(iconOf(ending(view.name)), "thumb");
}

/** What the buttons of jobs do; `after` is called once it is done. */
export function jobActs(after) {
  const doing = (does, title) => async (element) => {
    element.disabled = true;
    const done = await attempt(async () => { await does(`/api/v1/jobs/${element.dataset.id}`); return true; });
    element.disabled = false;
    if (done) announce(`${t(title)}: ${element.dataset.name}`);
    await after();
  };
  const deleting = doing(remove, "delete");
  return {
    cancel: doing((path) => post(`${path}/cancel`), "cancel"),
    retry: doing((path) => post(`${path}/retry`), "retry"),
    delete: async (element) => { if (await sure(t("confirmDelete", { name: element.dataset.name }), t("delete"))) await deleting(element); },
  };
}

/** The buttons for what may be done with a job; `retries`: it has dead letters, from which it can be tried again. */
export function actions(view, retries = false) {
  const values = { id: view.id, name: view.name || view.id };
  const made = (act, kind) => button(act, t(act), { kind, values, label: `${t(act)}: ${values.name}` });
  if (isRunning(view)) return [made("cancel", "danger")];
  return [retries ? made("retry", "quiet") : null, made("delete", "danger")];
}

/** A function that says which of some jobs have dead letters; it asks again once other jobs have failed, or anew. */
function lettersOf(signal) {
  let asked = "", found = new Set();
  return async (some) => {
    const failed = some.filter((each) => each.state === "failed"), wanted = failed.map((each) => `${each.id} ${each.updated_at}`).join();
    if (wanted === asked) return found;
    const there = new Set();
    for (let after = failed.length ? 0 : null; after !== null && !failed.every((each) => there.has(each.id)); ) {
      const page = await ask(`/api/v1/dead-letters?limit=${LETTERS}&after=${after}`, { signal });
      for (const letter of page.letters) there.add(letter.job);
      after = page.next;
    }
    [asked, found] = [wanted, there];
    return found;
  };
}

function rows(found, retries) {
  return table(t("jobs"), [
    [t("name"), (each) => h("a", { href: `#job/${each.id}`, class: "named" }, thumb(each), raw(each.name || each.id, { title: each.name })), "name"],
    [t("pipeline"), (each) => raw(each.pipeline)],
    [t("state"), badge],
    [t("progress"), progress, "far"],
    [t("begun"), (each) => moment(each.created_at), "place"],
    [t("actions"), (each) => h("span", { class: "row" }, actions(each, each.state === "failed" && retries.has(each.id))), "acts"],
  ], found, (each) => each.id);
}

// Jobs and how far they are, the newest first; the list is read again while it is shown.
import { ask, post, remove } from "/page/api.js";
import { announce, h, table } from "/page/dom.js";
import { language, t } from "/page/language.js";
import { attempt } from "/page/main.js";

const STATES = ["publishing", "published", "done", "failed", "cancelled"];
const AGAIN_MS = 2000;
let state = "";

export async function jobs(_, signal) {
  const list = h("div");
  let pages = 1;
  const choice = h("select", { "aria-label": t("state"), onchange: (event) => { state = event.target.value; pages = 1; read(); } },
    h("option", { value: "" }, t("all")), STATES.map((each) => h("option", { value: each, selected: each === state }, t(each))));
  const read = () => attempt(async () => {
    const page = await ask(`/api/v1/jobs?limit=${50 * pages}${state ? `&state=${state}` : ""}`);
    if (signal.aborted) return;
    const more = page.next ? h("p", {}, h("button", { type: "button", class: "quiet", onclick: () => { pages += 1; read(); } }, t("more"))) : null;
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key, label = document.activeElement?.textContent;
    list.replaceChildren(...(page.jobs.length ? [rows(page.jobs, read), more].filter(Boolean) : [h("p", { class: "note" }, t("noJobs"))]));
    if (focused) [...list.querySelectorAll(`[data-key="${focused}"] :is(a, button)`)].find((each) => each.textContent === label)?.focus();
  });
  await read();
  const timer = setInterval(() => { if (!document.hidden) read(); }, AGAIN_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return [h("div", { class: "row end" }, h("h1", {}, t("jobs")), choice), list];
}

/** When a job was begun, in the page's language. */
export function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString(language() === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/** How far a job is: a bar, with its number for those who do not see it. */
export function bar(view) {
  const percent = view.progress === null ? null : Math.floor(view.progress * 100);
  if (view.state === "cancelled" || view.state === "failed") return h("span", { class: "soft" }, view.reasons[0] ?? "");
  if (percent === null) return h("progress", { max: 1, "aria-label": t("loading") });
  return h("progress", { max: 100, value: percent, "aria-label": t("percent", { percent }) });
}

/** The buttons for what may be done with a job; `after` is called once it is done. */
export function actions(view, after) {
  const button = (title, path, kind, question) => h("button", { type: "button", class: kind, "aria-label": `${title}: ${view.name}`, onclick: async () => {
    if (question && !confirm(question)) return;
    await attempt(async () => { await (kind === "danger" && question ? remove(path) : post(path)); announce(`${title}: ${view.name}`); });
    after();
  } }, title);
  const running = view.state === "publishing" || view.state === "published", path = `/api/v1/jobs/${view.id}`;
  return [
    running ? button(t("cancel"), `${path}/cancel`, "danger") : null,
    view.state === "failed" ? button(t("retry"), `${path}/retry`, "quiet") : null,
    running ? null : button(t("delete"), path, "danger", t("confirmDelete", { id: view.id })),
  ];
}

function rows(found, after) {
  return table(t("jobs"), [
    [t("name"), (each) => h("a", { href: `#job/${each.id}` }, each.name || each.id), "name"],
    [t("pipeline"), (each) => each.pipeline],
    [t("state"), (each) => h("span", { class: `state ${each.state}` }, t(each.state))],
    [t("progress"), bar],
    [t("begun"), (each) => moment(each.created_at), "place"],
    [t("actions"), (each) => h("span", { class: "row" }, actions(each, after))],
  ], found, (each) => each.id);
}

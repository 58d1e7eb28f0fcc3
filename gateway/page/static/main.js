// The page: a view for each address behind `#`, and what all views share.
import { ask, Problem, remove } from "/page/api.js";
import { isAway, say, whenBack } from "/page/connection.js";
import { announce, english, h } from "/page/dom.js";
import { icon } from "/page/icons.js";
import { choose, language, t } from "/page/language.js";
import { deadLetters } from "/page/dead.js";
import { fleet } from "/page/fleet.js";
import { job } from "/page/job.js";
import { jobs } from "/page/jobs.js";
import { errors } from "/page/sentences.js";
import { models } from "/page/models.js";
import { pipelines } from "/page/pipelines.js";
import { search } from "/page/search.js";
import { submit } from "/page/submit.js";

const views = { jobs, job, submit, search, fleet, pipelines, models, dead: deadLetters };
const shown = { jobs: "jobs", submit: "upload", search: "search", fleet: "chip", pipelines: "flow", models: "model", dead: "letter" };
const content = document.getElementById("content");
let leaving = new AbortController();
let acts = {};

/** Show a problem at the top of `where`, which defaults to the view. */
export function showProblem(problem, where = content) {
  const worded = (text) => (problem.own ? h("span", {}, text) : english(text));
  const meaning = language() === "zh" && !problem.own ? errors[problem.code] : null;
  const said = meaning ? [h("strong", {}, meaning), h("div", {}, worded(problem.message))] : h("strong", {}, worded(problem.message));
  const box = h("div", { class: "problem", role: "alert" }, said, problem.hint ? h("div", {}, worded(problem.hint)) : null);
  for (const old of where.querySelectorAll(":scope > .problem")) old.remove();
  const head = where.querySelector(":scope > h1, :scope > .bar");
  if (head) head.after(box);
  else where.prepend(box);
}

/** Run something that may fail with a Problem, which is shown; undefined then. */
export async function attempt(action, where = content) {
  try {
    return await action();
  } catch (problem) {
    if (problem.name === "AbortError") return undefined;
    if (problem instanceof Problem && problem.status === 401) login();
    else if (!(problem instanceof Problem && isAway(problem.status, problem.code) && problem.status !== 503)) showProblem(problem, where);
    return undefined;
  }
}

function login() {
  leaving.abort();
  const field = h("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
  const form = h("form", { class: "card narrow", onsubmit: async (event) => {
    event.preventDefault();
    try {
      const headers = { "Content-Type": "application/json" };
      await ask("/api/v1/session", { method: "POST", headers, body: JSON.stringify({ key: field.value }) });
      show();
    } catch (problem) { showProblem(problem, form); }
  } }, h("label", { for: "key" }, t("key")), field, h("p", { class: "soft" }, t("loginHelp"), " ", h("code", { translate: "no" }, "rigflow keys api add NAME")), h("button", { type: "submit" }, t("login")));
  document.title = `${t("login")} · rigflow`;
  content.replaceChildren(h("h1", {}, t("login")), form);
  heads();
  field.focus();
}

function heads() {
  const [name] = route();
  document.getElementById("nav").replaceChildren(...Object.entries(shown).map(([each, picture]) =>
    h("a", { href: `#${each}`, "aria-current": each === name || (each === "jobs" && name === "job") ? "page" : null }, icon(picture), t(each))));
  say();
  document.getElementById("skip").textContent = t("skip");
  const select = document.getElementById("language"), theme = document.getElementById("theme"), out = document.getElementById("logout");
  select.value = language();
  select.setAttribute("aria-label", t("language"));
  const other = t(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  theme.replaceChildren(icon("theme"));
  theme.setAttribute("aria-label", other);
  theme.title = other;
  out.textContent = t("logout");
  out.hidden = !document.cookie.includes("rigflow_csrf=");
}

const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };
const route = () => {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return Object.hasOwn(views, name) ? [name, rest.map(decoded).join("/")] : ["jobs", ""];
};

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const signal = leaving.signal, [name, argument] = route(), title = t(name === "job" ? "jobs" : name);
  heads();
  announce("");
  document.title = `${title} · rigflow`;
  content.replaceChildren(h("h1", {}, title), h("p", { class: "loading", role: "status" }, t("loading")));
  const own = {};
  const made = await attempt(() => views[name](argument, signal, own));
  if (signal.aborted) return;
  if (made) {
    acts = own;
    content.replaceChildren(...made);
  } else {
    content.querySelector(".loading")?.replaceWith(h("p", {}, h("button", { type: "button", onclick: show }, t("again"))));
    whenBack(show, signal);
  }
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  heads();
}

const themeNow = () => localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
content.addEventListener("click", (event) => {
  const element = event.target.closest("[data-act]");
  if (element && Object.hasOwn(acts, element.dataset.act)) acts[element.dataset.act](element, event);
});
content.addEventListener("error", (event) => { // a picture that is gone
  if (event.target.matches?.("img.thumb")) event.target.replaceWith(icon("picture", "thumb"));
}, true);
document.getElementById("theme").addEventListener("click", () => {
  localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  setTheme(themeNow());
});
document.getElementById("language").addEventListener("change", (event) => { choose(event.target.value); show(); });
document.getElementById("logout").addEventListener("click", async () => {
  if (await attempt(async () => { await remove("/api/v1/session"); return true; })) login();
});
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); content.focus(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(themeNow()));
window.addEventListener("storage", (event) => { // another tab changed it
  if (event.key === "theme") setTheme(themeNow());
  if (event.key === "language" && event.newValue && event.newValue !== language()) { choose(event.newValue); show(); }
});
window.addEventListener("hashchange", async () => {
  await show();
  window.scrollTo(0, 0);
  content.focus({ preventScroll: true });
  announce(document.title);
});
choose(language());
setTheme(themeNow());
show();

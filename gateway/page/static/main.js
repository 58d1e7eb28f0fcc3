// The page: a view for each address behind `#`, and what all views share.
import { ask, post, Problem, remove } from "/page/api.js";
import { announce, h } from "/page/dom.js";
import { choose, language, t } from "/page/language.js";
import { deadLetters } from "/page/dead.js";
import { fleet } from "/page/fleet.js";
import { job } from "/page/job.js";
import { jobs } from "/page/jobs.js";
import { pipelines } from "/page/pipelines.js";
import { submit } from "/page/submit.js";

const views = { jobs, job, submit, fleet, pipelines, dead: deadLetters };
const shown = ["jobs", "submit", "fleet", "pipelines", "dead"];
const content = document.getElementById("content");
let leaving = new AbortController();

/** Show a problem above the view; `where` defaults to the view. */
export function showProblem(problem, where = content) {
  const box = h("div", { class: "problem", role: "alert" }, h("strong", {}, problem.message), problem.hint ? h("div", {}, problem.hint) : null);
  for (const old of where.querySelectorAll(":scope > .problem")) old.remove();
  where.prepend(box);
}

/** Run something that may fail with a Problem, which is shown. */
export async function attempt(action) {
  try {
    return await action();
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 401) login();
    else showProblem(problem);
    return undefined;
  }
}

function login() {
  const field = h("input", { type: "password", id: "key", autocomplete: "current-password", required: true });
  const form = h("form", { class: "card", onsubmit: async (event) => {
    event.preventDefault();
    try {
      const headers = { "Content-Type": "application/json" };
      await ask("/api/v1/session", { method: "POST", headers, body: JSON.stringify({ key: field.value }) });
      show();
    } catch (problem) { showProblem(problem, form); }
  } }, h("label", { for: "key" }, t("key")), field, h("p", { class: "soft" }, t("loginHelp")), h("button", { type: "submit" }, t("login")));
  content.replaceChildren(h("h1", {}, t("login")), form);
  field.focus();
}

function heads() {
  const [name] = route();
  document.getElementById("nav").replaceChildren(...shown.map((each) =>
    h("a", { href: `#${each}`, "aria-current": each === name || (each === "jobs" && name === "job") ? "page" : null }, t(each))));
  document.getElementById("skip").textContent = t("skip");
  const select = document.getElementById("language");
  select.value = language();
  select.setAttribute("aria-label", t("language"));
  document.getElementById("theme").textContent = t(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  const out = document.getElementById("logout");
  out.textContent = t("logout");
  out.hidden = !document.cookie.includes("rigflow_csrf=");
}

const route = () => {
  const [name, ...rest] = location.hash.slice(1).split("/");
  return views[name] ? [name, rest.map(decodeURIComponent).join("/")] : ["jobs", ""];
};

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const [name, argument] = route();
  heads();
  document.title = `${t(name === "job" ? "jobs" : name)} · rigflow`;
  content.replaceChildren(h("h1", { class: "unseen" }, t(name === "job" ? "jobs" : name)), h("p", { class: "soft" }, t("loading")));
  const signal = leaving.signal;
  await attempt(async () => {
    const made = await views[name](argument, signal);
    if (!signal.aborted) content.replaceChildren(...made);
  });
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  heads();
});
document.getElementById("language").addEventListener("change", (event) => { choose(event.target.value); show(); });
document.getElementById("logout").addEventListener("click", () => attempt(async () => { await remove("/api/v1/session"); login(); heads(); }));
document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); content.focus(); });
window.addEventListener("hashchange", async () => { await show(); content.focus(); announce(document.title); });
setTheme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
choose(language());
show();

// The models of the fleet: their cards, their engines, where they are ready; added by an upload, and removed.
import { ask, remove, upload } from "/page/api.js";
import { sure } from "/page/dialog.js";
import { announce, button, english, facts, h, nothing, raw, table } from "/page/dom.js";
import { size } from "/page/format.js";
import { icon } from "/page/icons.js";
import { many, t } from "/page/language.js";
import { attempt } from "/page/main.js";
import { dropping } from "/page/submit.js";

export async function models(argument, signal, acts) {
  acts.removeModel = async (element) => {
    const { name } = element.dataset;
    if (!await sure(t("confirmModel", { name }), t("remove"))) return;
    if (await attempt(async () => { await remove(`/api/v1/models/${encodeURIComponent(name)}`); return true; })) location.hash === "#models" ? dispatchEvent(new HashChangeEvent("hashchange")) : (location.hash = "models");
  };
  return argument ? one(argument, signal) : list(signal);
}

async function list(signal) {
  const known = (await ask("/api/v1/models", { signal })).models;
  return [h("h1", {}, t("models")), known.length ? h("div", { class: "grid" }, known.map(card)) : nothing(icon("model"), t("noModels")), h("h2", {}, t("addModel")), adding(signal)];
}

const linked = (names) => names.map((name, place) => [place ? t("comma") : "", h("a", { href: `#submit/${encodeURIComponent(name)}` }, raw(name))]);

function about(each) {
  return facts([
    [t("gives"), each.heads.length ? raw(each.heads.join(", ")) : null], [t("version"), raw(each.version)],
    [t("pipelines"), each.pipelines.length ? h("span", {}, linked(each.pipelines)) : t("noPipeline")],
    [t("furtherFiles"), each.further_bytes ? size(each.further_bytes) : null], [t("id"), h("code", { class: "id", translate: "no", title: each.identity }, each.identity.slice(0, 12))],
  ]);
}

const removing = (each) => button("removeModel", t("remove"), { kind: "danger", values: { name: each.name }, label: `${t("remove")}: ${each.name}`, disabled: each.pipelines.length > 0 });

function card(each) {
  return h("section", { class: "card", "aria-label": each.name }, h("h2", {}, h("a", { href: `#models/${encodeURIComponent(each.name)}` }, raw(each.name))), about(each), each.pipelines.length ? null : h("div", { class: "row" }, removing(each)));
}

async function one(name, signal) {
  const path = `/api/v1/models/${encodeURIComponent(name)}`;
  const [view, ready] = await Promise.all([ask(path, { signal }), ask(`${path}/readiness`, { signal })]);
  return [
    h("p", { class: "back" }, h("a", { href: "#models" }, icon("left"), t("allModels"))),
    h("div", { class: "bar" }, h("h1", {}, raw(view.name)), h("div", { class: "push row" }, removing(view))),
    view.pipelines.length ? h("p", { class: "soft" }, t("inUse")) : null,
    h("div", { class: "card" }, about(view)),
    h("h2", {}, t("whereReady")), ready.workers.length ? places(ready.workers) : h("p", { class: "soft" }, t("nowhere")),
    h("h2", {}, t("engines")), ready.engines.length ? engines(ready.engines) : h("p", { class: "soft" }, t("noEngines")),
    h("h2", {}, t("card")), h("div", { class: "card" }, h("pre", { translate: "no", tabindex: "0", role: "region", "aria-label": t("card") }, written(view.card))),
  ].filter(Boolean);
}

function places(workers) {
  return table(t("whereReady"), [
    [t("worker"), (each) => raw(each.worker), "name"], [t("device"), (each) => raw(`${each.device} ${each.gpu}`.trim())], [t("pipeline"), (each) => raw(each.pipeline)],
    [t("state"), (each) => h("span", { class: `state ${each.ready ? "done" : "starting"}` }, t(each.ready ? "ready" : "notReady"), each.ready ? "" : h("span", { class: "soft" }, t("colon"), english(each.why)))],
  ], workers);
}

function engines(known) {
  return table(t("engines"), [
    [t("backend"), (each) => raw(`${each.backend} ${each.version}`), "name"], [t("gpus"), (each) => raw([...each.targets, each.device].filter(Boolean).join(", "))],
    [t("precision"), (each) => raw(each.precision)], [t("bytes"), (each) => size(each.size_bytes), "number"], [t("state"), (each) => t(each.current ? "current" : "outdated")],
  ], known, (each) => each.key);
}

/** A card without the fields that say nothing, as lines. */
function written(value, indent = "") {
  if (Array.isArray(value)) return value.every((each) => each === null || typeof each !== "object") ? `[${value.slice(0, 40).join(", ")}${value.length > 40 ? ", …" : ""}]` : value.map((each) => `\n${indent}- ${written(each, `${indent}  `).trimStart()}`).join("");
  if (value === null || typeof value !== "object") return String(value);
  const empty = (each) => each === null || each === "" || (typeof each === "object" && !Object.keys(each).length);
  return Object.entries(value).filter(([, each]) => !empty(each)).map(([name, each]) => `\n${indent}${name}: ${written(each, `${indent}  `)}`).join("").replace(indent ? "" : /^\n/, "");
}

function adding(signal) {
  const name = h("input", { id: "name", required: true, pattern: "[A-Za-z0-9_\\-]{1,64}", maxlength: "64", autocomplete: "off", spellcheck: "false", title: t("nameRule"), "aria-describedby": "rule" });
  const picked = h("p", { class: "soft" }, t("noFile"));
  let file = null;
  const place = dropping(([given]) => {
    file = given ?? file;
    if (!file) return;
    picked.replaceChildren(raw(file.name), ` ${size(file.size)}`);
    send.disabled = false;
    if (!name.value) name.value = file.name.replace(/\.(onnx|zip)$/i, "").replace(/[^A-Za-z0-9_-]+/g, "-").slice(0, 64);
  }, false, t("onnx"), ".onnx,.zip");
  place.classList.add("small");
  const bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": t("file") }), send = h("button", { type: "submit", disabled: true }, t("addModel"));
  const form = h("form", { class: "card narrow", onsubmit: async (event) => {
    event.preventDefault();
    bar.hidden = false;
    send.disabled = true;
    const made = await attempt(() => upload(`/api/v1/models?name=${encodeURIComponent(name.value)}`, file, (share) => { bar.value = share; }, signal), form);
    bar.hidden = true;
    send.disabled = false;
    if (made) { announce(many("modelAdded", 1, { name: made.name })); location.hash = `models/${encodeURIComponent(made.name)}`; }
  } }, h("p", { class: "soft" }, t("addHelp")), place, picked, h("label", { for: "name" }, t("name")), name, h("p", { class: "soft", id: "rule" }, t("nameRule")), bar, send);
  return form;
}

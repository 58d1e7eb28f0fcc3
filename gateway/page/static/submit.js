// Files of this machine become jobs: choose a pipeline, set its options, drop files.
import { ask } from "/page/api.js";
import { button, english, h, nothing, plain, raw, redraw } from "/page/dom.js";
import { ending, percent, size } from "/page/format.js";
import { icon, iconOf } from "/page/icons.js";
import { t, word } from "/page/language.js";
import { attempt, showProblem } from "/page/main.js";
import { send, sent, stop, watch } from "/page/sending.js";

let chosen = "";

export async function submit(argument, signal, acts) {
  const known = (await ask("/api/v1/pipelines", { signal })).pipelines;
  if (!known.length) return [h("h1", {}, t("submit")), nothing(icon("flow"), t("noPipelines"), command("rigflow up"))];
  const has = (name) => known.some((each) => each.name === name);
  if (argument) chosen = has(argument) ? argument : "";
  else if (!has(chosen)) chosen = known[0].name;
  const options = h("div"), about = h("div", { class: "soft" }), list = h("ul", { class: "plain sent", "aria-label": t("files") });
  const bulk = h("input", { type: "checkbox", id: "bulk" });
  const select = h("select", { id: "pipeline", onchange: (event) => { chosen = event.target.value; describe(); } },
    chosen ? null : h("option", { value: "", selected: true, disabled: true }, "–"), known.map((each) => h("option", { value: each.name, selected: each.name === chosen, translate: "no" }, each.name)));
  const describe = () => attempt(async () => {
    notHere.hidden = Boolean(chosen);
    form.hidden = drop.hidden = !chosen;
    if (!chosen) return;
    const view = await ask(`/api/v1/pipelines/${encodeURIComponent(chosen)}`, { signal });
    about.replaceChildren(h("p", {}, view.description ? english(`${view.description[0].toUpperCase()}${view.description.slice(1)}. `) : "", `${t("takes")}${view.media.map((each) => word("media", each)).join(t("comma"))}`));
    options.replaceChildren(...view.stage.map(stage).filter(Boolean));
  });
  const notHere = h("p", { class: "note", role: "alert" }, plain(t("notHere", { name: argument })));
  const form = h("div", {}, about, h("p", {}, bulk, " ", h("label", { for: "bulk", class: "inline" }, t("bulk"))),
    h("details", {}, h("summary", {}, t("options")), h("p", { class: "soft" }, t("optional")), options));
  const drop = dropping((files) => send(files, given()), true);
  const given = () => {
    const query = new URLSearchParams({ pipeline: chosen, priority: bulk.checked ? "bulk" : "interactive" });
    for (const field of options.querySelectorAll("[data-field]"))
      if (field.value !== "") query.append("set", `${field.dataset.field}=${field.value}`);
    return query;
  };
  acts.stop = (element) => stop(Number(element.dataset.place));
  watch(() => redraw(list, ...sent.map(line)), signal);
  await describe();
  redraw(list, ...sent.map(line));
  return [h("h1", {}, t("submit")), notHere, h("div", { class: "card" }, h("label", { for: "pipeline" }, t("pipeline")), select, form), drop, list];
}

const command = (text) => h("p", {}, h("code", { translate: "no" }, text));

/** A place where files are dropped, chosen or pasted. */
export function dropping(take, multiple, text = t("dropHere"), accept = null) {
  const input = h("input", { type: "file", multiple, accept, id: "files", class: "unseen", onchange: (event) => {
    take([...event.target.files]);
    event.target.value = "";
  } });
  const over = (on) => (event) => { event.preventDefault(); box.classList.toggle("over", on); };
  const box = h("div", { class: "drop", ondragover: over(true), ondragleave: over(false), ondrop: (event) => {
    over(false)(event);
    const files = [...event.dataTransfer.files];
    if (files.length) take(multiple ? files : files.slice(0, 1));
  } }, icon("upload"), h("p", {}, text), input, h("label", { for: "files", class: "button" }, t(multiple ? "choose" : "chooseOne")));
  return box;
}

function line(each, place) {
  const made = h("li", { class: "card", "data-key": String(place) }, h("div", { class: "bar" }, icon(iconOf(ending(each.file.name))), raw(each.file.name, { class: "grow" }), h("span", { class: "soft" }, size(each.file.size)), end(each),
    button("stop", t(each.job || each.problem ? "remove" : "cancel"), { kind: "quiet square", icon: icon("close"), values: { place }, label: `${t(each.job || each.problem ? "remove" : "cancel")}: ${each.file.name}` })));
  if (each.problem) showProblem(each.problem, made);
  return made;
}

function end(each) {
  if (each.job) return h("a", { class: "button quiet", href: `#job/${each.job.id}`, "aria-label": t("sent", { name: each.file.name, id: each.job.id }) }, t("toJob"));
  if (each.problem) return "";
  return h("span", { class: "progress" }, h("progress", { max: 1, value: each.share, "aria-label": t("sending", { name: each.file.name, percent: Math.floor(100 * each.share) }) }), h("span", { "aria-hidden": "true" }, percent(Math.floor(100 * each.share) / 100)));
}

/** The fields of a stage, with what they mean. */
function stage(view) {
  const properties = Object.entries(view.options.properties ?? {}).flatMap(([name, schema]) => fields(view.options, name, schema));
  if (!properties.length) return null;
  return h("fieldset", {}, h("legend", { translate: "no" }, view.name === view.kind ? view.name : `${view.name} (${view.kind})`), h("div", { class: "grid" }, properties.map(([name, schema]) => field(view, name, schema))));
}

/** A property, or those of the object that it refers to. */
function fields(root, name, schema) {
  const own = schema.$ref ? { ...root.$defs?.[schema.$ref.split("/").pop()], ...schema } : schema;
  if (own.type === "object" && own.properties) return Object.entries(own.properties).flatMap(([inner, each]) => fields(root, inner, each));
  return [[name, own]];
}

function field(view, name, schema) {
  const id = `${view.name}.${name}`, choices = schema.enum ?? (schema.type === "boolean" ? ["true", "false"] : null);
  const value = view.fields[name] ?? view.fields.options?.[name] ?? schema.default;
  const placeholder = value === undefined || value === null || typeof value === "object" ? "" : String(value);
  const about = schema.description ? `${id}-about` : null;
  const input = choices
    ? h("select", { id, "data-field": id, "aria-describedby": about, translate: "no" }, h("option", { value: "" }, placeholder ? `(${placeholder})` : "–"), choices.map((each) => h("option", { value: String(each) }, String(each))))
    : h("input", { id, "data-field": id, placeholder, type: "text", translate: "no", "aria-describedby": about, autocomplete: "off", spellcheck: "false" });
  return h("div", { class: "field" }, h("label", { for: id, translate: "no" }, name), input, about ? h("p", { id: about, lang: "en", translate: "no" }, schema.description) : null);
}

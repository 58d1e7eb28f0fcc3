// Files of this machine become jobs: choose a pipeline, set its options, drop files.
import { ask, upload } from "/page/api.js";
import { announce, h } from "/page/dom.js";
import { keep } from "/page/given.js";
import { t } from "/page/language.js";
import { attempt, showProblem } from "/page/main.js";

let chosen = "";

export async function submit(argument, signal) {
  const known = (await ask("/api/v1/pipelines")).pipelines;
  if (!known.length) return [h("h1", {}, t("submit")), h("p", { class: "note" }, t("noPipelines"))];
  chosen = known.some((each) => each.name === argument) ? argument : known.some((each) => each.name === chosen) ? chosen : known[0].name;
  const options = h("div"), about = h("p", { class: "soft" }), sent = h("ul", { "aria-label": t("file") });
  const bulk = h("input", { type: "checkbox", id: "bulk" });
  const select = h("select", { id: "pipeline", onchange: (event) => { chosen = event.target.value; describe(); } },
    known.map((each) => h("option", { value: each.name, selected: each.name === chosen }, each.name)));
  const describe = () => attempt(async () => {
    const view = await ask(`/api/v1/pipelines/${chosen}`);
    about.textContent = [view.description, `${t("takes")}: ${view.media.join(", ")}`].filter(Boolean).join(" · ");
    options.replaceChildren(...view.stage.map(stage).filter(Boolean));
  });
  const files = h("input", { type: "file", multiple: true, id: "files", class: "unseen", onchange: (event) => send([...event.target.files]) });
  const drop = h("div", { class: "drop",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); }, ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); send([...event.dataTransfer.files]); },
  }, h("p", {}, t("dropHere")), files, h("label", { for: "files", class: "button" }, t("choose")));
  const send = async (list) => {
    const query = new URLSearchParams({ pipeline: chosen, priority: bulk.checked ? "bulk" : "interactive" });
    for (const field of options.querySelectorAll("[data-field]"))
      if (field.value !== "") query.append("set", `${field.dataset.field}=${field.value}`);
    for (const file of list) await one(file, query);
  };
  const one = async (file, query) => {
    const bar = h("progress", { max: 100, value: 0, "aria-label": t("sending", { name: file.name, percent: 0 }) }), line = h("li", {}, file.name, " ", bar);
    sent.prepend(line);
    query.set("name", file.name);
    try {
      const job = await upload(`/api/v1/jobs?${query}`, file, (done, total) => { bar.value = total ? Math.floor((100 * done) / total) : 0; }, signal);
      keep(job.id, file);
      line.replaceChildren(h("a", { href: `#job/${job.id}` }, t("sent", { name: file.name, id: job.id })));
      announce(t("sent", { name: file.name, id: job.id }));
    } catch (problem) {
      if (signal.aborted) return;
      line.replaceChildren(file.name);
      showProblem(problem, line);
    }
  };
  await describe();
  return [h("h1", {}, t("submit")), h("div", { class: "card" }, h("label", { for: "pipeline" }, t("pipeline")), select, about,
    h("details", {}, h("summary", {}, t("options")), h("p", { class: "soft" }, t("optional")), options, h("p", {}, bulk, " ", h("label", { for: "bulk", class: "inline" }, t("bulk"))))), drop, sent];
}

/** The fields of a stage, with what they mean. */
function stage(view) {
  const properties = Object.entries(view.options.properties ?? {}).flatMap(([name, schema]) => fields(view.options, name, schema));
  if (!properties.length) return null;
  return h("fieldset", {}, h("legend", {}, view.name === view.kind ? view.name : `${view.name} (${view.kind})`), properties.map(([name, schema]) => field(view, name, schema)));
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
  const input = choices
    ? h("select", { id, "data-field": id }, h("option", { value: "" }, placeholder ? `(${placeholder})` : ""), choices.map((each) => h("option", { value: String(each) }, String(each))))
    : h("input", { id, "data-field": id, placeholder, type: "text", "aria-describedby": schema.description ? `${id}-about` : null });
  return h("div", { class: "field" }, h("label", { for: id }, name), schema.description ? h("p", { id: `${id}-about` }, schema.description) : null, input);
}

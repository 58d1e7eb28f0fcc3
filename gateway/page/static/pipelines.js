// The pipelines of the fleet and their models.
import { ask } from "/page/api.js";
import { h } from "/page/dom.js";
import { t } from "/page/language.js";

export async function pipelines() {
  const known = (await ask("/api/v1/pipelines")).pipelines;
  const cards = known.map((each) => h("section", { class: "card", "aria-label": each.name }, h("h2", {}, each.name), h("p", {}, each.description), h("dl", {},
    h("dt", {}, t("takes")), h("dd", {}, each.media.join(", ")), h("dt", {}, t("stages")), h("dd", {}, each.stages.join(" → ")),
    Object.keys(each.models).length ? [h("dt", {}, t("models")), h("dd", {}, Object.keys(each.models).join(", "))] : null),
    h("p", {}, h("a", { class: "button quiet", href: `#submit/${each.name}`, "aria-label": `${t("submit")}: ${each.name}` }, t("submit")))));
  return [h("h1", {}, t("pipelines")), known.length ? h("div", { class: "grid" }, cards) : h("p", { class: "note" }, t("noPipelines"))];
}

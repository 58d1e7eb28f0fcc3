// The pipelines of the fleet and their models.
import { ask } from "/page/api.js";
import { english, facts, h, nothing, raw } from "/page/dom.js";
import { icon } from "/page/icons.js";
import { t, word } from "/page/language.js";

export async function pipelines(_, signal) {
  const known = (await ask("/api/v1/pipelines", { signal })).pipelines;
  if (!known.length) return [h("h1", {}, t("pipelines")), nothing(icon("flow"), t("noPipelines"), h("p", {}, h("code", { translate: "no" }, "rigflow up")))];
  return [h("h1", {}, t("pipelines")), h("div", { class: "grid" }, known.map(card))];
}

function card(each) {
  const models = Object.keys(each.models);
  return h("section", { class: "card", "aria-label": each.name },
    h("div", { class: "bar" }, h("h2", {}, raw(each.name)), h("div", { class: "push" }, h("a", { class: "button quiet", href: `#submit/${encodeURIComponent(each.name)}`, "aria-label": `${t("submit")}: ${each.name}` }, t("submit")))),
    each.description ? english(`${each.description[0].toUpperCase()}${each.description.slice(1)}.`, "p") : null,
    facts([
      [t("media"), each.media.map((kind) => word("media", kind)).join(t("comma"))],
      [t("stages"), raw(each.stages.join(" → "))],
      [t("models"), models.length ? h("span", {}, models.map((name, place) => [place ? t("comma") : "", h("a", { href: `#models/${encodeURIComponent(name)}` }, raw(name))])) : null],
    ]));
}

// Pictures and films by words or by a picture, among what `embed` stored in the fleet.
import { ask, upload } from "/page/api.js";
import { english, h, nothing, raw } from "/page/dom.js";
import { clock, ending, number } from "/page/format.js";
import { sentPicture } from "/page/given.js";
import { icon, iconOf } from "/page/icons.js";
import { many, t } from "/page/language.js";
import { attempt } from "/page/main.js";
import { dropping } from "/page/submit.js";

const MOST = 60;
let words = "";

export async function search(_, signal) {
  const { models, left_out: leftOut } = await ask("/api/v1/search/models", { signal });
  if (!models.length) return [h("h1", {}, t("search")), nothing(icon("search"), t("noVectors"), h("p", {}, h("a", { class: "button", href: "#submit/embed" }, t("submit"))))];
  const found = h("div", { "aria-live": "polite" }), choice = chooser(models);
  const model = () => models[choice.value ?? 0];
  const show = async (asked) => {
    found.replaceChildren(h("p", { class: "loading", role: "status" }, t("searching")));
    const view = await attempt(asked, found);
    found.querySelector(".loading")?.remove();
    if (view && !signal.aborted) found.replaceChildren(...hits(view));
  };
  const field = h("input", { type: "search", id: "words", value: words, required: true, maxlength: "1000", placeholder: t("wordsHint"), "aria-label": t("searchWords") });
  const form = h("form", { class: "row", onsubmit: (event) => {
    event.preventDefault();
    words = field.value;
    show(() => ask(`/api/v1/search?${new URLSearchParams({ words, most: MOST, model: model().identity })}`, { signal }));
  } }, field, h("button", { type: "submit" }, t("search")));
  const like = dropping(([file]) => show(() => upload(`/api/v1/search?${new URLSearchParams({ most: MOST, model: model().identity })}`, file, () => {}, signal)), false, t("dropPicture"), "image/*,video/*");
  like.classList.add("small");
  const about = h("div"), tell = () => {
    about.replaceChildren(...state(model(), leftOut));
    form.hidden = !model().words;
  };
  choice.addEventListener?.("change", tell);
  tell();
  return [h("h1", {}, t("search")), h("div", { class: "card" }, form, like, models.length > 1 ? h("p", {}, h("label", { for: "model" }, t("model")), choice) : null, about), found];
}

const chooser = (models) => (models.length > 1 ? h("select", { id: "model" }, models.map((each, place) => h("option", { value: place, translate: "no" }, each.model))) : {});

function state(model, leftOut) {
  return [model.words ? null : h("p", { class: "note" }, `${t("noWords")} `, english(model.why)),
    h("p", { class: "soft" }, many("searchable", model.media, { pictures: many("pictures", model.pictures) }), t("comma"), t("byModel"), raw(model.model), leftOut ? `${t("comma")}${many("leftOut", leftOut)}` : "")].filter(Boolean);
}

function hits(view) {
  if (!view.hits.length) return [nothing(icon("search"), t("noneSuch"))];
  const best = Math.max(...view.hits.map((hit) => hit.score), 0.01);
  return [h("ol", { class: "hits" }, view.hits.map((hit) => h("li", { class: "card" }, h("a", { href: `#job/${encodeURIComponent(hit.job)}` }, preview(hit), raw(hit.name)),
    h("p", { class: "soft" }, hit.time_s === null ? "" : `${t("at", { time: clock(hit.time_s) })} · `, h("meter", { min: 0, max: 1, value: Math.max(0, hit.score / best), "aria-hidden": "true" }), " ", h("span", { title: t("cosine") }, number(hit.score, 3))))))];
}

/** The picture itself where this browser sent it; else the small one of the job, or an icon. */
function preview(hit) {
  const source = hit.thumbnail ?? sentPicture(hit.job);
  return source ? h("img", { class: "thumb", src: source, alt: "", loading: "lazy", decoding: "async" }) : icon(iconOf(ending(hit.name)), "thumb");
}

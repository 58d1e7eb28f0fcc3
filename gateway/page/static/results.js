// The files of a job as a browser can show them: films with subtitles, sound, pictures, text with times, tables.
import { ask, bytes, text } from "/page/api.js";
import { button, h, nothing, raw } from "/page/dom.js";
import { ending, size } from "/page/format.js";
import { gallery, picture } from "/page/pictures.js";
import { icon, iconOf } from "/page/icons.js";
import { isRunning } from "/page/jobs.js";
import { t } from "/page/language.js";
import { attempt } from "/page/main.js";
import { listed } from "/page/npz.js";
import { players } from "/page/players.js";
import { json, table } from "/page/texts.js";

const PAGE = 50, MOST_TEXT = 2_000_000, MOST_ARRAYS = 16_000_000, GALLERY = 4;
const kindOf = (file) => file.content_type.split("/")[0];
const READ = ["json", "jsonl", "txt", "srt", "vtt", "tsv", "csv"];

/** The text that says why a job has no files. */
export const withoutFiles = (job) => (job.ended_at ? "noResults" : isRunning(job) ? "noFiles" : "notCollected");

export async function results(job, signal, acts) {
  const path = `/api/v1/jobs/${job.id}/results`, box = h("div"), rest = h("div");
  const page = await ask(`${path}?limit=${PAGE}`, { signal });
  if (!page.files.length) return [nothing(icon("box"), t(withoutFiles(job)))];
  const player = await players(job, page.files, signal, acts);
  const more = (next) => rest.replaceChildren(next ? h("p", {}, button("more", t("more"), { values: { next } })) : "");
  const add = async (files) => box.append(...await cards(job, files, box, player, signal, acts));
  acts.more = (element) => attempt(async () => {
    const following = await ask(`${path}?limit=${PAGE}&cursor=${element.dataset.next}`, { signal });
    await add(following.files);
    more(following.next);
  }, rest);
  await add(page.files);
  more(page.next);
  const zip = page.files.length > 1 ? h("p", {}, h("a", { class: "button quiet", href: `${path}.zip`, download: "" }, t("zip"))) : null;
  return [player.above, zip, box, rest].filter(Boolean);
}

async function cards(job, files, box, player, signal, acts) {
  const pictures = files.filter((file) => kindOf(file) === "image"), before = box.querySelector(".gallery");
  const apart = before || pictures.length > GALLERY ? [gallery(pictures, acts, before)] : [];
  const others = apart.length ? files.filter((file) => kindOf(file) !== "image") : files;
  return [...apart, ...await Promise.all(others.map((file) => card(job, file, player, signal, acts)))];
}

async function card(job, file, player, signal, acts) {
  const link = h("a", { class: "button quiet", href: file.url, download: file.name, "aria-label": `${t("download")}: ${file.name}` }, t("download"));
  const made = h("section", { class: "card file", "aria-label": file.name },
    h("div", { class: "bar" }, icon(iconOf(ending(file.name))), h("h3", {}, raw(file.name)), h("span", { class: "soft" }, size(file.size)), h("div", { class: "push" }, link)));
  if (player.of.has(file.name)) made.append(player.of.get(file.name));
  else if (kindOf(file) === "image") made.append(...picture(file, job.id));
  else await attempt(async () => made.append(...await read(file, player, signal, acts)), made);
  return made;
}

/** The content of a file of text or arrays; nothing where it is too large, or of another kind. */
async function read(file, player, signal, acts) {
  const kind = ending(file.name);
  if (kind === "npz" && file.size <= MOST_ARRAYS) return listed(await bytes(file.url, MOST_ARRAYS, signal));
  if (!READ.includes(kind)) return [];
  if (file.size > MOST_TEXT) return [h("p", { class: "soft" }, t("tooLarge"))];
  const content = await text(file.url, MOST_TEXT, signal);
  if (kind === "json") return json(content, player, acts);
  if (kind === "jsonl" || kind === "csv" || kind === "tsv") return table(content, kind, player, file.name, acts);
  return [h("pre", { translate: "no", dir: "auto", tabindex: "0", role: "region", "aria-label": file.name }, content.slice(0, 100_000))];
}

// The files of a job as a browser can show them: films with subtitles, sound, pictures, text with times, tables.
import { h, size } from "/page/dom.js";
import { t } from "/page/language.js";
import { given } from "/page/given.js";

const MOST_TEXT = 2_000_000;
const kindOf = (file) => file.content_type.split("/")[0];
const ending = (file) => file.name.slice(file.name.lastIndexOf(".") + 1).toLowerCase();

export async function results(job, files) {
  const tracks = await Promise.all(files.filter((file) => ["vtt", "srt"].includes(ending(file))).map(track));
  const made = [];
  let player = null;
  for (const file of files) {
    const shown = kindOf(file) === "video" ? film(file, tracks) : kindOf(file) === "audio" ? h("audio", { controls: true, src: file.url, "aria-label": file.name })
      : kindOf(file) === "image" ? picture(job, file) : null;
    if (shown && kindOf(file) !== "image") player = shown;
    made.push(card(file, shown));
  }
  const source = given(job.id);
  if (!player && source && /^(audio|video)\//.test(source.type)) {
    player = source.type.startsWith("video/") ? film({ url: URL.createObjectURL(source), name: source.name }, tracks)
      : h("audio", { controls: true, src: URL.createObjectURL(source), "aria-label": source.name });
    made.unshift(h("div", { class: "card" }, player));
  }
  for (const [number, file] of files.entries()) {
    if (file.size > MOST_TEXT || !["json", "jsonl", "txt", "srt", "vtt", "tsv", "csv"].includes(ending(file))) continue;
    const text = await (await fetch(file.url)).text();
    made[number + (made.length - files.length)].append(ending(file) === "json" ? json(text, player) : h("pre", { tabindex: "0" }, text.slice(0, 100_000)));
  }
  if (files.length > 1) made.push(h("p", {}, h("a", { class: "button quiet", href: `/api/v1/jobs/${job.id}/results.zip`, download: "" }, t("zip"))));
  return [h("div", {}, made)];
}

function card(file, shown) {
  const link = h("a", { class: "button quiet", href: file.url, download: file.name, "aria-label": `${t("download")}: ${file.name}` }, t("download"));
  return h("div", { class: "card" }, h("div", { class: "row end" }, h("span", {}, file.name, " ", h("span", { class: "soft" }, size(file.size))), link), shown);
}

function film(file, tracks) {
  const element = h("video", { controls: true, preload: "metadata", src: file.url, "aria-label": file.name });
  tracks.forEach((url, number) => element.append(h("track", { kind: "subtitles", src: url, label: t("words"), default: number === 0 })));
  return element;
}

/** Subtitles as WebVTT, which browsers read; srt differs in its commas. */
async function track(file) {
  const text = await (await fetch(file.url)).text();
  const vtt = ending(file) === "vtt" ? text : `WEBVTT\n\n${text.replace(/(\d\d:\d\d:\d\d),(\d{3})/g, "$1.$2")}`;
  return URL.createObjectURL(new Blob([vtt], { type: "text/vtt" }));
}

/** A picture; beside the one that was given, where this browser sent it. */
function picture(job, file) {
  const image = h("img", { class: "shown", src: file.url, alt: t("picture", { name: file.name }), loading: "lazy" });
  const before = given(job.id);
  if (!before?.type.startsWith("image/")) return image;
  const over = h("img", { src: URL.createObjectURL(before), alt: t("picture", { name: before.name }) });
  const show = (share) => { over.style.clipPath = `inset(0 ${100 - share}% 0 0)`; };
  show(50);
  image.classList.remove("shown");
  return [h("div", { class: "compare" }, image, over), h("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": t("compareSlider"), oninput: (event) => show(event.target.value) })];
}

/** Words of a transcript play from where they are said; other JSON is shown as it is. */
function json(text, player) {
  let found;
  try { found = JSON.parse(text); } catch { return h("pre", { tabindex: "0" }, text.slice(0, 100_000)); }
  const words = (found.segments ?? []).flatMap((segment) => segment.words ?? []);
  if (!words.length || !player) return h("pre", { tabindex: "0" }, JSON.stringify(found, null, 2).slice(0, 100_000));
  const buttons = words.map((word) => h("button", { type: "button", title: t("play", { time: word.start.toFixed(2) }), onclick: () => { player.currentTime = word.start; player.play(); } }, word.word));
  player.addEventListener("timeupdate", () => buttons.forEach((button, number) =>
    button.classList.toggle("now", words[number].start <= player.currentTime && player.currentTime < words[number].end)));
  return h("section", { "aria-label": t("words") }, h("h3", {}, t("words")), h("p", { class: "words" }, buttons));
}

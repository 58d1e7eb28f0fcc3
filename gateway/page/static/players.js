// Films and sound of a job, with its subtitles; or the media that this browser sent, where the results are texts of it.
import { text } from "/page/api.js";
import { h, raw } from "/page/dom.js";
import { ending } from "/page/format.js";
import { given } from "/page/given.js";
import { t } from "/page/language.js";

const MOST_SUBTITLES = 2_000_000;

/** `of`: the player of each file; `first`: what texts play; `above`: that of the media that was sent, or null. */
export async function players(job, files, signal, acts) {
  const urls = [], kept = (blob) => { urls.push(URL.createObjectURL(blob)); return urls.at(-1); };
  signal.addEventListener("abort", () => urls.forEach((url) => URL.revokeObjectURL(url)));
  const subtitles = files.filter((file) => ["vtt", "srt"].includes(ending(file.name)));
  const best = subtitles.filter((file) => ending(file.name) === "vtt");
  const tracks = await Promise.all((best.length ? best : subtitles).map(async (file) => ({ name: file.name, url: kept(new Blob([vtt(await text(file.url, MOST_SUBTITLES, signal))], { type: "text/vtt" })) })));
  const of = new Map();
  for (const file of files) {
    const kind = file.content_type.split("/")[0];
    if (kind === "video") of.set(file.name, film(file.url, file.name, tracks));
    else if (kind === "audio") of.set(file.name, h("audio", { controls: true, preload: "metadata", src: file.url, "aria-label": file.name }));
  }
  let first = of.values().next().value ?? null, above = null;
  const source = given(job.id);
  if (!first && source && /^(audio|video)\//.test(source.type)) {
    const url = kept(source);
    first = source.type.startsWith("video/") ? film(url, source.name, tracks) : h("audio", { controls: true, src: url, "aria-label": source.name });
    above = h("section", { class: "card file", "aria-label": source.name }, h("div", { class: "bar" }, h("h3", {}, raw(source.name)), h("span", { class: "soft" }, t("asSent"))), first);
  }
  acts.play = (element) => { if (first) { first.currentTime = Number(element.dataset.at); first.play(); } };
  return { of, first, above };
}

function film(url, name, tracks) {
  const element = h("video", { controls: true, preload: "metadata", playsinline: true, src: url, "aria-label": name });
  tracks.forEach((track, place) => element.append(h("track", { kind: "subtitles", src: track.url, label: track.name, default: place === 0 })));
  return element;
}

/** Subtitles as WebVTT, which browsers read; srt differs in its commas. */
function vtt(content) {
  return content.startsWith("WEBVTT") ? content : `WEBVTT\n\n${content.replace(/\r/g, "").replace(/(\d\d:\d\d:\d\d),(\d{3})/g, "$1.$2")}`;
}

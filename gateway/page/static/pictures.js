// Pictures: one by itself, beside the one that it was made of, or many as a gallery that opens over the page.
import { open } from "/page/dialog.js";
import { button, h, raw } from "/page/dom.js";
import { given, sentPicture } from "/page/given.js";
import { icon } from "/page/icons.js";
import { t } from "/page/language.js";

/** A picture; beside the one that was given, where this browser sent it. */
export function picture(file, job) {
  const before = given(job);
  const image = h("img", { class: "shown", src: file.url, alt: t("picture", { name: file.name }), loading: "lazy" });
  if (!before?.type.startsWith("image/")) return [image];
  const over = h("img", { src: sentPicture(job) ?? URL.createObjectURL(before), alt: t("picture", { name: before.name }) });
  const line = h("div", { class: "line" });
  const show = (share) => {
    over.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    line.style.left = `${share}%`;
  };
  show(50);
  image.classList.remove("shown");
  return [h("div", { class: "compare" }, image, over, line),
    h("label", { class: "slider" }, h("span", {}, t("before")), h("input", { type: "range", min: "0", max: "100", value: "50", "aria-label": t("compareSlider"), oninput: (event) => show(Number(event.target.value)) }), h("span", {}, t("after")))];
}

/** Many pictures, small; each opens over the page. `before`: a gallery that they are added to. */
export function gallery(files, acts, before = null) {
  const earlier = before ? JSON.parse(before.dataset.files) : [];
  acts.open = (element) => viewer(JSON.parse(element.closest(".gallery").dataset.files), Number(element.dataset.place));
  const made = before ?? h("div", { class: "gallery", role: "group", "aria-label": t("gallery") });
  made.append(...files.map((file, place) =>
    h("button", { type: "button", class: "plain", "data-act": "open", "data-place": earlier.length + place, "aria-label": t("openPicture", { name: file.name }) },
      file.thumbnail ? h("img", { class: "thumb", src: file.thumbnail, alt: "", loading: "lazy", decoding: "async" }) : icon("picture", "thumb"), raw(file.name))));
  made.dataset.files = JSON.stringify([...earlier, ...files.map(({ name, url }) => ({ name, url }))]);
  return made;
}

function viewer(files, place) {
  const image = h("img", {}), name = h("bdi", { translate: "no" }), link = h("a", { class: "button quiet" }, t("download"));
  const show = (step) => {
    place = (place + step + files.length) % files.length;
    image.src = files[place].url;
    image.alt = t("picture", { name: files[place].name });
    name.textContent = files[place].name;
    link.href = files[place].url;
    link.download = files[place].name;
  };
  const step = (title, picture, by) => h("button", { type: "button", class: "quiet square", "aria-label": title, title, onclick: () => show(by) }, icon(picture));
  const box = h("dialog", { class: "viewer", "aria-label": t("gallery"), onkeydown: (event) => {
    if (event.key === "ArrowLeft") show(-1);
    if (event.key === "ArrowRight") show(1);
  } }, h("div", { class: "bar" }, name, h("div", { class: "row push" }, step(t("previous"), "left", -1), step(t("next"), "right", 1), link,
    h("button", { type: "button", class: "quiet square", "aria-label": t("close"), title: t("close"), onclick: () => box.close() }, icon("close")))), image);
  show(0);
  open(box);
}

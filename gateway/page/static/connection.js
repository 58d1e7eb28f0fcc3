// Whether the gateway can be reached: a line says when it cannot, and views go on by themselves when it is back.
import { announce, h } from "/page/dom.js";
import { t } from "/page/language.js";

const FIRST_MS = 1000, LONGEST_MS = 10000;
const bar = document.getElementById("away");
let away = false;

/** Whether a status and the code of its problem mean that the gateway, or its broker, is away for now. */
export const isAway = (status, code = "") => [0, 502, 504].includes(status) || (status === 503 && ["", "broker-error", "service-unavailable"].includes(code));

/** Say that it is away, and look until it is back; then everyone who waits with `whenBack` goes on. */
export function lost() {
  if (away) return;
  away = true;
  say();
  bar.hidden = false;
  look(FIRST_MS);
}

/** Say it in the page's language. */
export function say() {
  if (away) bar.replaceChildren(h("span", { class: "dot" }), t("away"));
}

function look(wait) {
  setTimeout(async () => {
    const ready = await fetch("/readyz", { cache: "no-store" }).then((response) => response.ok, () => false);
    if (!ready) return look(Math.min(LONGEST_MS, wait * 1.5));
    away = false;
    bar.hidden = true;
    announce(t("back"));
    document.dispatchEvent(new Event("rigflow-back"));
  }, wait);
}

/** Call `then` once it is back. */
export function whenBack(then, signal) {
  document.addEventListener("rigflow-back", then, { once: true, signal });
}

/** Do something again and again while the page is seen, `ms` after it was done, until the signal. */
export function repeat(action, ms, signal) {
  let timer = 0, running = false;
  const next = async () => {
    clearTimeout(timer);
    if (signal.aborted || running) return;
    if (!document.hidden && !away) {
      running = true;
      await action();
      running = false;
    }
    if (!signal.aborted && !document.hidden) timer = setTimeout(next, ms);
  };
  timer = setTimeout(next, ms);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) next(); }, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
}

/** Follow server-sent events while the page is seen. `on` is called with a kind and its data; false from it ends that.
 * `check` is called when the stream was refused: it asks for the same by an ordinary request, which says why. */
export function stream(path, kinds, on, check, signal) {
  let source = null, over = false;
  const open = () => {
    if (source || over || signal.aborted || document.hidden) return;
    source = new EventSource(path);
    for (const kind of kinds)
      source.addEventListener(kind, (event) => { if (on(kind, JSON.parse(event.data)) === false) { over = true; close(); } });
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) { lost(); return; }
      close();
      check();
      setTimeout(open, 2 * FIRST_MS);
    });
  };
  const close = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()), { signal });
  document.addEventListener("rigflow-back", () => { close(); open(); }, { signal });
  signal.addEventListener("abort", close);
  open();
}

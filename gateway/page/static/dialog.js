// Questions before what cannot be undone, and pictures over the whole page. Escape closes both.
import { h } from "/page/dom.js";
import { t } from "/page/language.js";

/** Ask a question; whether the answer is yes. */
export function sure(question, yes) {
  return new Promise((resolve) => {
    const box = h("dialog", { "aria-labelledby": "question" }, h("form", { method: "dialog" },
      h("p", { id: "question" }, question),
      h("div", { class: "row end" }, h("button", { value: "no", class: "quiet", autofocus: true }, t("keep")), h("button", { value: "yes", class: "danger" }, yes))));
    open(box, () => resolve(box.returnValue === "yes"));
  });
}

/** Show elements over the page until it is closed. */
export function open(box, closed = () => {}) {
  const before = document.activeElement;
  box.addEventListener("close", () => { box.remove(); if (before?.isConnected) before.focus(); closed(); });
  box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  document.body.append(box);
  box.showModal();
}

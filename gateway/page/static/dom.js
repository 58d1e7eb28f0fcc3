// Elements. Text from outside always becomes a text node, never markup.
import { language, t } from "/page/language.js";
import { chinese, forPeople } from "/page/sentences.js";

/** Make an element: properties that begin with `on` are listeners, empty children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A name from outside: it is not translated, and letters of another direction do not disturb what is around it. */
export const raw = (text, properties = {}) => h("bdi", { translate: "no", ...properties }, plain(text));

/** A sentence of the gateway, which is English unless the page has it in its own language. */
export function english(text, tag = "span", properties = {}) {
  const own = language() === "zh" ? chinese(text) : null;
  return own ? h(tag, { translate: "no", ...properties }, plain(own)) : h(tag, { lang: "en", translate: "no", dir: "ltr", ...properties }, plain(forPeople(text, (view) => t("onPage", { view: t(view) }))));
}

/** A text without the marks that turn the direction of letters, by which `gnp.exe` looks like a picture. */
export const plain = (text) => String(text).replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

/** A button that the view's actions handle: `values` are its data, `label` says to screen readers what it is for. */
export function button(action, title, { kind = "quiet", values = {}, label = null, disabled = false, icon: picture = null } = {}) {
  const made = h("button", { type: "button", class: kind, "data-act": action, "aria-label": label, disabled, title: picture ? title : null }, picture ?? title);
  Object.assign(made.dataset, values);
  return made;
}

/** A table; a column is [title, cell of a row, class]. On a phone each row is a card with the titles beside the cells. */
export function table(caption, columns, rows, key) {
  const head = h("tr", {}, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind ?? null }, title)));
  const body = rows.map((row) => h("tr", { "data-key": key ? key(row) : null }, columns.map(([title, cell, kind]) => h("td", { class: kind ?? null, "data-title": title }, cell(row)))));
  return h("div", { class: "scroll" }, h("table", { class: "stack" }, h("caption", { class: "unseen" }, caption), h("thead", {}, head), h("tbody", {}, body)));
}

/** Facts as a list: [title, value], without those that have no value. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", {}, known.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value))));
}

/** What is shown where there is nothing: an icon, a sentence, and what may be done. */
export const nothing = (picture, text, ...more) => h("div", { class: "empty" }, picture, h("p", {}, text), more);

/** Make the children of a box equal to these, and leave what is equal as it is: a button that is pressed stays the same
 * button, and the focus stays where it was. Rows are the same by their `data-key`. */
export function redraw(box, ...children) {
  const active = box.contains(document.activeElement) ? document.activeElement : null, row = active?.closest("[data-key]");
  match(box, children.filter((child) => child !== null && child !== "").map((child) => (typeof child === "string" ? new Text(child) : child)));
  if (active && !active.isConnected) (row?.isConnected ? row : box).querySelector("a, button:enabled")?.focus({ preventScroll: true });
}

const keyOf = (node) => node.dataset?.key;

function match(box, fresh) {
  const keyed = new Map([...box.children].filter((each) => keyOf(each) !== undefined).map((each) => [keyOf(each), each]));
  let at = box.firstChild;
  for (const child of fresh) {
    const key = keyOf(child), known = key === undefined ? at && keyOf(at) === undefined && at.nodeName === child.nodeName && at : keyed.get(key);
    if (!known) box.insertBefore(child, at);
    else {
      if (known === at) at = at.nextSibling;
      else box.insertBefore(known, at);
      become(known, child);
    }
  }
  while (at) {
    const after = at.nextSibling;
    at.remove();
    at = after;
  }
}

/** Give an element the attributes and the children of another one. */
function become(known, fresh) {
  if (known.isEqualNode(fresh)) return;
  if (known.nodeType !== Node.ELEMENT_NODE) { known.data = fresh.data; return; }
  for (const { name } of [...known.attributes]) if (!fresh.hasAttribute(name)) known.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (known.getAttribute(name) !== value) known.setAttribute(name, value);
  match(known, [...fresh.childNodes]);
}

/** Say something to people who do not see the page. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

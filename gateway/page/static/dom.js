// Elements, numbers and dates. Text from outside always becomes a text node, never markup.

/** Make an element: properties that begin with `on` are listeners, `null` children are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined));
  return element;
}

/** A table; a column is [title, cell of a row, "number" or "name"]. */
export function table(caption, columns, rows, key) {
  const head = h("tr", {}, columns.map(([title, , kind]) => h("th", { scope: "col", class: kind ?? null }, title)));
  const body = rows.map((row) =>
    h("tr", { "data-key": key ? key(row) : null }, columns.map(([title, cell, kind]) =>
      h("td", { class: kind ?? null, "data-title": title }, cell(row)))));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: "stack" }, h("caption", { class: "unseen" }, caption), h("thead", {}, head), h("tbody", {}, body)));
}

/** Bytes with three digits and a decimal unit. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) [bytes, unit] = [bytes / 1000, unit + 1];
  return `${unit ? Number(bytes.toPrecision(3)) : Math.round(bytes)} ${units[unit]}`;
}

/** Seconds as h:mm:ss. */
export function clock(seconds) {
  const whole = Math.floor(seconds), hours = Math.floor(whole / 3600), two = (number) => String(number).padStart(2, "0");
  return `${hours ? `${hours}:${two(Math.floor(whole / 60) % 60)}` : Math.floor(whole / 60)}:${two(whole % 60)}`;
}

/** Say something to people who do not see the page. */
export function announce(text) {
  document.getElementById("live").textContent = text;
}

// The language of the page: a dictionary a language, with the same keys.
import { en } from "/page/en.js";
import { zh } from "/page/zh.js";

const dictionaries = { en, zh };
let chosen = localStorage.getItem("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const language = () => chosen;

export function choose(name) {
  chosen = name;
  localStorage.setItem("language", name);
  document.documentElement.lang = name === "zh" ? "zh-Hans" : "en";
}

/** The text of a key, with {names} replaced. */
export function t(key, values = {}) {
  return (dictionaries[chosen][key] ?? en[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

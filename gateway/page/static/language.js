// The language of the page: a dictionary a language, with the same keys.
import { en } from "/page/en.js";
import { zh } from "/page/zh.js";

const dictionaries = { en, zh };
let chosen = localStorage.getItem("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

export const language = () => chosen;

export function choose(name) {
  chosen = dictionaries[name] ? name : "en";
  localStorage.setItem("language", chosen);
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
}

/** The text of a key, with {names} replaced. */
export function t(key, values = {}) {
  return (dictionaries[chosen][key] ?? en[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** The text for a number of things: `key` has the singular, `keyMany` the rest. */
export const many = (key, count, values = {}) =>
  t(count === 1 ? key : `${key}Many`, { count: count.toLocaleString(chosen === "zh" ? "zh-CN" : "en-GB"), ...values });

/** The word for a state or a kind that the gateway names, or that name. */
export const word = (prefix, name) => {
  const key = `${prefix}${name.replace(/(?:^|[\s_-])(\w)/g, (_, letter) => letter.toUpperCase())}`;
  return key in en ? t(key) : name;
};

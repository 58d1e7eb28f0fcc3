// Numbers, sizes and times in the page's language.
import { h } from "/page/dom.js";
import { language, t } from "/page/language.js";

const locale = () => (language() === "zh" ? "zh-CN" : "en-GB");
export const number = (value, digits = 0) => value.toLocaleString(locale(), { maximumFractionDigits: digits });
export const percent = (share) => `${number(100 * share)}\u00a0%`;

/** Bytes with three digits and a decimal unit. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) [bytes, unit] = [bytes / 1000, unit + 1];
  return `${unit ? number(Number(bytes.toPrecision(3)), 2) : Math.round(bytes)} ${units[unit]}`;
}

/** Seconds as h:mm:ss, of less than an hour with so many digits more. */
export function clock(seconds, digits = 0) {
  const whole = Math.floor(seconds), hours = Math.floor(whole / 3600), two = (value) => String(value).padStart(2, "0");
  const rest = digits && seconds < 3600 ? `.${String(Math.floor((seconds - whole) * 10 ** digits + 1e-6)).padStart(digits, "0")}` : "";
  return `${hours ? `${hours}:${two(Math.floor(whole / 60) % 60)}` : Math.floor(whole / 60)}:${two(whole % 60)}${rest}`;
}

/** How long something took: less than a minute in seconds. */
export const took = (seconds) =>
  seconds < 60 ? t("seconds", { seconds: number(Math.max(0, seconds), seconds < 1 ? 2 : seconds < 10 ? 1 : 0) }) : clock(seconds);

/** When something was: of today only the time. */
export function moment(seconds) {
  const date = new Date(seconds * 1000), now = new Date();
  const today = date.toDateString() === now.toDateString();
  const long = date.toLocaleString(locale(), { dateStyle: "medium", timeStyle: "medium" });
  const short = date.toLocaleString(locale(), today ? { timeStyle: "medium" } : { day: "numeric", month: "short", year: date.getFullYear() === now.getFullYear() ? undefined : "numeric", hour: "2-digit", minute: "2-digit" });
  return h("time", { datetime: date.toISOString(), title: long }, short);
}

/** The ending of a file's name, in small letters. */
export const ending = (name) => (/\.([^.]+)$/.exec(name)?.[1] ?? "").toLowerCase();

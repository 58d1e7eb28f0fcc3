// Texts of results: words and rows that play from where they are, tables, and JSON as it is.
import { button, h, plain, table as made } from "/page/dom.js";
import { clock, number } from "/page/format.js";
import { many, t } from "/page/language.js";

const ROWS = 100, COLUMNS = 12, MOST = 100_000, MOST_WORDS = 5000;
const TIMES = ["start", "start_s", "time", "time_s", "t", "begin"];

/** A transcript as words or lines that play; a list of records as a table; other JSON as it is. */
export function json(content, player, acts) {
  let found;
  try { found = JSON.parse(content); } catch { return [whole(content)]; }
  const segments = Array.isArray(found?.segments) ? found.segments : [];
  const words = segments.flatMap((segment) => (Array.isArray(segment?.words) ? segment.words : [])).filter((word) => typeof word?.start === "number");
  if (words.length && player.first) return [spoken(words.slice(0, MOST_WORDS), player.first)];
  if (segments.length && segments.every((each) => typeof each?.text === "string")) return [lines(segments, player)];
  if (Array.isArray(found) && found.length && found.every(isRecord)) return rows(found, player, t("table"), acts);
  return [whole(JSON.stringify(found, null, 2))];
}

/** A file of lines of JSON, or of columns that commas or tabs separate. */
export function table(content, kind, player, name, acts) {
  const found = kind === "jsonl" ? ofLines(content) : separated(content, kind === "csv" ? "," : "\t");
  return found?.length ? rows(found, player, name, acts) : [whole(content)];
}

const isRecord = (each) => each !== null && typeof each === "object" && !Array.isArray(each);

function ofLines(content) {
  try {
    const found = content.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line));
    return found.every(isRecord) ? found : null;
  } catch { return null; }
}

function separated(content, by) {
  const [head, ...rest] = fields(content, by);
  if (!head || head.length < 2) return null;
  return rest.map((cells) => Object.fromEntries(head.map((title, place) => [title || String(place + 1), cells[place] ?? ""])));
}

/** Lines of fields; a field in quotes may hold the separator, line ends, and quotes twice. */
function fields(content, by) {
  const lines = [[""]];
  let quoted = false;
  for (let at = 0; at < content.length; at += 1) {
    const letter = content[at], line = lines.at(-1);
    if (quoted && letter === '"' && content[at + 1] === '"') { line[line.length - 1] += '"'; at += 1; }
    else if (letter === '"' && (quoted || line.at(-1) === "")) quoted = !quoted;
    else if (!quoted && letter === by) line.push("");
    else if (!quoted && letter === "\n") lines.push([""]);
    else if (quoted || letter !== "\r") line[line.length - 1] += letter;
  }
  return lines.filter((line) => line.length > 1 || line[0]);
}

/** Records as a table, some at a time. */
function rows(found, player, name, acts) {
  const titles = [...new Set(found.slice(0, 1000).flatMap(Object.keys))];
  const columns = titles.slice(0, COLUMNS).map((title) => [title, (row) => cell(row[title], title, player), found.every((row) => typeof row[title] === "number") ? "number" : null]);
  const box = h("div", { class: "data" }), key = `rows ${name}`;
  let shown = ROWS;
  const draw = () => box.replaceChildren(made(name, columns, found.slice(0, shown)), h("p", { class: "soft row" },
    titles.length > COLUMNS ? many("moreColumns", titles.length - COLUMNS) : "", shown < found.length ? t("rowsOf", { shown: number(shown), total: number(found.length) }) : many("rowCount", found.length),
    shown < found.length ? button(key, t("more")) : ""));
  acts[key] = () => { shown += ROWS; draw(); };
  draw();
  for (const head of box.querySelectorAll("th")) head.translate = false;
  return [box];
}

function cell(value, title, player) {
  if (player.first && TIMES.includes(title) && Number.isFinite(Number(value)) && value !== "") return plays(Number(value));
  if (value === null || value === undefined) return "";
  const shown = typeof value === "number" ? number(value, 4) : typeof value === "object" ? brief(value) : String(value);
  return h("span", { translate: "no", dir: "auto", class: "value" }, plain(shown.length > 300 ? `${shown.slice(0, 299)}…` : shown));
}

/** What was found as labels with scores; other structures as JSON. */
function brief(value) {
  if (!Array.isArray(value)) return JSON.stringify(value);
  if (!value.length) return "–";
  if (!value.every((each) => isRecord(each) && "label" in each)) return JSON.stringify(value);
  return value.map((each) => [each.label, typeof each.score === "number" ? number(each.score, 2) : ""].join(" ").trim()).join(", ");
}

const plays = (at) => button("play", clock(at, 2), { kind: "link", values: { at }, label: t("play", { time: clock(at, 2) }) });

function lines(segments, player) {
  return h("ol", { class: "lines" }, segments.slice(0, MOST_WORDS).map((each) => h("li", {}, player.first ? plays(each.start ?? 0) : h("span", { class: "soft" }, clock(each.start ?? 0, 1)), h("span", { translate: "no", dir: "auto" }, each.text.trim()))));
}

/** Words of a transcript, each a button; the one that is being said is marked, by one listener. */
function spoken(words, player) {
  const buttons = words.map((each) => h("button", { type: "button", "data-act": "play", "data-at": each.start, title: t("play", { time: clock(each.start, 1) }) }, String(each.word).trim()));
  let now = -1;
  player.addEventListener("timeupdate", () => {
    const at = player.currentTime, place = words.findIndex((each) => each.start <= at && at < each.end);
    if (place === now) return;
    buttons[now]?.classList.remove("now");
    buttons[place]?.classList.add("now");
    now = place;
  });
  return h("section", { "aria-label": t("words") }, h("h4", {}, t("words")), h("p", { class: "words", translate: "no", dir: "auto" }, buttons.map((each, place) => [/^\s/.test(words[place].word) ? " " : "", each])));
}

const whole = (content) => h("pre", { translate: "no", dir: "auto", tabindex: "0", role: "region", "aria-label": t("content") }, content.slice(0, MOST));

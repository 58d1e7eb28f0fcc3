// What a file of NumPy's arrays holds: names, types and shapes. Of a zip, only the parts that are needed are read.
import { raw, table } from "/page/dom.js";
import { size } from "/page/format.js";
import { t } from "/page/language.js";

const END = 0x06054b50, ENTRY = 0x02014b50, HEAD_BYTES = 1024, MOST = 200;

/** A table of the arrays of an npz; nothing where it is none. */
export async function listed(buffer) {
  try {
    const arrays = await Promise.all(entries(buffer).slice(0, MOST).map((entry) => array(buffer, entry)));
    return [table(t("arrays"), [
      [t("name"), (each) => raw(each.name), "name"], [t("type"), (each) => raw(each.type)],
      [t("shape"), (each) => raw(each.shape), "place"], [t("bytes"), (each) => size(each.bytes), "number"],
    ], arrays)];
  } catch { return []; }
}

/** The entries of a zip, by its directory at the end. */
function entries(buffer) {
  const view = new DataView(buffer);
  let end = buffer.byteLength - 22;
  while (view.getUint32(end, true) !== END) end -= 1;
  let at = view.getUint32(end + 16, true);
  return Array.from({ length: view.getUint16(end + 10, true) }, () => {
    if (view.getUint32(at, true) !== ENTRY) throw new Error("no zip");
    const [names, extra, comment] = [28, 30, 32].map((place) => view.getUint16(at + place, true));
    const entry = { packed: view.getUint16(at + 10, true) !== 0, length: view.getUint32(at + 20, true), bytes: view.getUint32(at + 24, true), start: view.getUint32(at + 42, true), name: new TextDecoder().decode(new Uint8Array(buffer, at + 46, names)) };
    at += 46 + names + extra + comment;
    return entry;
  });
}

async function array(buffer, entry) {
  const view = new DataView(buffer), start = entry.start + 30 + view.getUint16(entry.start + 26, true) + view.getUint16(entry.start + 28, true);
  const content = buffer.slice(start, start + entry.length);
  const head = entry.packed ? await unpacked(content) : new Uint8Array(content, 0, Math.min(HEAD_BYTES, content.byteLength));
  const text = new TextDecoder("latin1").decode(head);
  const type = /'descr': '([^']*)'/.exec(text)?.[1] ?? "?", shape = /'shape': \(([^)]*)\)/.exec(text)?.[1] ?? "?";
  return { name: entry.name.replace(/\.npy$/, ""), type: named(type), shape: shape.replace(/,\s*$/, "").split(/,\s*/).join(" × ") || "–", bytes: entry.bytes };
}

/** The beginning of what was deflated. */
async function unpacked(content) {
  const reader = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader();
  const { value } = await reader.read();
  await reader.cancel();
  return value.slice(0, HEAD_BYTES);
}

function named(code) {
  const kinds = { f: "float", i: "int", u: "uint", b: "bool", U: "text", S: "bytes" }, [, kind, width] = /([a-zA-Z])(\d*)$/.exec(code) ?? [];
  return kind === "U" || kind === "b" ? kinds[kind] : kinds[kind] ? `${kinds[kind]}${8 * Number(width)}` : code;
}

// Pictures of 24 x 24, drawn as lines in the colour of the text.
const NS = "http://www.w3.org/2000/svg";
const paths = {
  film: "M4 5h16v14H4zM8 5v14M16 5v14M4 9.7h4M4 14.3h4M16 9.7h4M16 14.3h4",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.5h.01",
  sound: "M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0zM19 16a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0z",
  text: "M5 5h14M5 10h14M5 15h9M5 20h6",
  numbers: "M5 4v16h15M9 16v-5M13 16V7M17 16v-8",
  box: "M4 8l8-4 8 4v8l-8 4-8-4zM4 8l8 4 8-4M12 12v8",
  jobs: "M4 6h16M4 12h16M4 18h10",
  upload: "M12 16V5M7.5 9.5L12 5l4.5 4.5M5 19h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM16 16l4 4",
  chip: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  flow: "M4 6h5v5H4zM15 13h5v5h-5zM9 8.5h4a2 2 0 0 1 2 2V13",
  model: "M12 4l7 4v8l-7 4-7-4V8zM12 9.5v5M9.5 12h5",
  letter: "M4 6h16v12H4zM4 7l8 6 8-6",
  theme: "M19.5 14A8 8 0 0 1 10 4.5a8 8 0 1 0 9.5 9.5z",
  close: "M6 6l12 12M18 6L6 18",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
};

export function icon(name, kind = "") {
  const svg = document.createElementNS(NS, "svg"), path = document.createElementNS(NS, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon ${kind}`);
  path.setAttribute("d", paths[name] ?? paths.box);
  svg.append(path);
  return svg;
}

const kinds = { film: "mp4 mkv webm avi ts mov m4v", picture: "png jpg jpeg webp gif avif bmp tiff heic", sound: "wav mp3 flac ogg opus m4a aac", text: "txt json jsonl srt vtt csv tsv md", numbers: "npz npy" };

/** The icon for a file of that ending. */
export const iconOf = (suffix) => Object.keys(kinds).find((kind) => kinds[kind].split(" ").includes(suffix)) ?? "box";

// Files that this page sent, by job, so that a result can be shown beside what it was made of.
const files = new Map(), urls = new Map();
const MOST = 200, MOST_BYTES = 20_000_000;

export const given = (job) => files.get(job) ?? null;

export function keep(job, file) {
  files.set(job, file);
  if (files.size <= MOST) return;
  const [oldest] = files.keys();
  files.delete(oldest);
  if (urls.has(oldest)) URL.revokeObjectURL(urls.get(oldest));
  urls.delete(oldest);
}

/** The address of a picture that was sent as that job; null where it was none, or a large one. */
export function sentPicture(job) {
  const file = files.get(job);
  if (!file?.type.startsWith("image/") || file.size > MOST_BYTES) return null;
  if (!urls.has(job)) urls.set(job, URL.createObjectURL(file));
  return urls.get(job);
}

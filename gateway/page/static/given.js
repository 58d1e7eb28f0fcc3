// Files that this page sent, by job, so that a result can be shown beside what it was made of.
const files = new Map();
const MOST = 50;

export const given = (job) => files.get(job) ?? null;

export function keep(job, file) {
  files.set(job, file);
  if (files.size > MOST) files.delete(files.keys().next().value);
}

// Prints what the page weighs and fails beyond its budget: 150 KB raw, 50 KB
// gzip. Counted are the files that the server sends, each compressed alone.

import { readFile, readdir } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';

const LIMIT = { raw: 150_000, gzip: 50_000 };
const root = new URL('./', import.meta.url);

/** Paths of all files that the page may load, relative to web/. */
export async function assets() {
  const found = ['index.html', 'app.css', 'vendor/preact.js'];
  for (const entry of await readdir(new URL('js/', root), { recursive: true })) {
    if (entry.endsWith('.js')) found.push(`js/${entry}`);
  }
  return found;
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const total = { raw: 0, gzip: 0 };
  for (const path of (await assets()).sort()) {
    const bytes = await readFile(new URL(path, root));
    const gzip = gzipSync(bytes, { level: 9 }).length;
    total.raw += bytes.length;
    total.gzip += gzip;
    console.log(`${String(bytes.length).padStart(8)} ${String(gzip).padStart(7)}  ${path}`);
  }
  console.log(`${String(total.raw).padStart(8)} ${String(total.gzip).padStart(7)}  total (limit ${LIMIT.raw} raw, ${LIMIT.gzip} gzip)`);
  if (total.raw > LIMIT.raw || total.gzip > LIMIT.gzip) {
    console.error('the page is over its budget');
    process.exit(1);
  }
}

// Prints what the page weighs and fails beyond its budget: 150 KB raw, 50 KB
// gzip. Counted is what the server sends, each file compressed alone.

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

/** A file as the server sends it: `sent` in src/serve/assets.rs does the same. */
export async function sent(path) {
  const text = await readFile(new URL(path, root), 'utf8');
  if (!/^(js\/.*|app\.css$)/.test(path)) return Buffer.from(text);
  let comment = false;
  const lines = text.trimEnd().split('\n').map((whole) => {
    const line = whole.trim();
    comment ||= line.startsWith('/*');
    const kept = comment || line.startsWith('//') ? '' : line;
    comment &&= !line.endsWith('*/');
    return kept;
  });
  return Buffer.from(`${lines.join('\n')}\n`);
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const total = { raw: 0, gzip: 0 };
  for (const path of (await assets()).sort()) {
    const bytes = await sent(path);
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

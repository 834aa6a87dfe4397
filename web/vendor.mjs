// Writes web/vendor/: the libraries the page uses, as a file that the
// server embeds and that `cargo build` therefore needs no Node for.
//
//   node vendor.mjs           write the files
//   node vendor.mjs --check   build again and compare with what is checked in
//
// The versions are pinned in package.json and package-lock.json, so the bytes
// are reproducible; vendor/SHA256SUMS can be checked with `sha256sum -c`.

import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = new URL('./', import.meta.url);
const out = new URL('vendor/', root);
const packages = ['preact', 'htm'];

// One module for everything that renders: hooks keep their state inside
// preact's `options`, so both must come from one copy.
const PREACT = `
import { h, render } from 'preact';
import htm from 'htm';
export { render };
export { useEffect, useReducer, useRef, useState } from 'preact/hooks';
export const html = htm.bind(h);
`;

const manifest = async (name) =>
  JSON.parse(await readFile(new URL(`node_modules/${name}/package.json`, root), 'utf8'));

async function bundle(name, contents) {
  const result = await build({
    stdin: { contents, resolveDir: fileURLToPath(root), sourcefile: name },
    bundle: true,
    format: 'esm',
    minify: true,
    legalComments: 'none',
    target: 'es2022',
    write: false,
    logLevel: 'error',
  });
  return result.outputFiles[0].text;
}

async function files() {
  const versions = {};
  let licences = 'The files in this directory are built by ../vendor.mjs from the packages below.\n';
  for (const name of packages) {
    const { version, license } = await manifest(name);
    versions[name] = version;
    const text = await readFile(new URL(`node_modules/${name}/LICENSE`, root), 'utf8');
    licences += `\n${'='.repeat(72)}\n${name} ${version} (${license})\n${'='.repeat(72)}\n\n${text.trim()}\n`;
  }
  const note = (names) =>
    `/*! ${names.map((name) => `${name} ${versions[name]}`).join(', ')}: licences in LICENSES.txt */\n`;
  const made = {
    'preact.js': note(['preact', 'htm']) + (await bundle('preact.js', PREACT)),
    'LICENSES.txt': licences,
  };
  made.SHA256SUMS = Object.entries(made)
    .map(([name, text]) => `${createHash('sha256').update(text).digest('hex')}  ${name}\n`)
    .join('');
  return made;
}

const made = await files();
if (process.argv.includes('--check')) {
  let stale = 0;
  for (const [name, text] of Object.entries(made)) {
    const kept = await readFile(new URL(name, out), 'utf8').catch(() => null);
    if (kept !== text) {
      stale += 1;
      console.error(`vendor/${name} is not what vendor.mjs builds; run: node vendor.mjs`);
    }
  }
  if (stale > 0) process.exit(1);
  console.log(`vendor: ${Object.keys(made).length} files are fresh`);
} else {
  await mkdir(out, { recursive: true });
  for (const [name, text] of Object.entries(made)) {
    await writeFile(new URL(name, out), text);
    console.log(`vendor/${name} ${text.length} bytes`);
  }
}

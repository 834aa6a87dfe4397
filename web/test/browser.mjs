// A real Chromium with the page in it, and what must hold whatever it shows:
// no violation of the content security policy, no request that leaves the
// origin, no error in the console, nothing that axe objects to.

import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP evil.test 127.0.0.1',
];
const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const WCAG = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

/** Counts what passed and failed; a failed check does not end the run. */
export class Tally {
  passed = 0;
  failed = 0;

  async check(name, body) {
    try {
      await body();
      this.passed += 1;
      console.log(`ok   ${name}`);
    } catch (error) {
      this.failed += 1;
      console.log(`FAIL ${name}\n     ${String(error.message ?? error).slice(0, 1500).replaceAll('\n', '\n     ')}`);
    }
  }

  /** Prints the closing line and sets the exit code. */
  close() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exitCode = this.failed > 0 || this.passed === 0 ? 1 : 0;
  }
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}

export function equal(is, should, what) {
  assert(is === should, `${what}: is ${JSON.stringify(is)}, should be ${JSON.stringify(should)}`);
}

/** Waits until `probe` gives something true, asking every 50 ms. */
export async function until(probe, what, ms = 10_000) {
  const end = performance.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Opens a browser on `url`. `expected` matches console errors that are meant. */
export async function open(url, { scheme = 'light', expected = null } = {}) {
  const dir = await mkdtemp(join(tmpdir(), 'page-'));
  const context = await chromium.launchPersistentContext(dir, {
    executablePath: EXECUTABLE,
    headless: true,
    args: ARGS,
    viewport: { width: 1360, height: 900 },
    colorScheme: scheme,
    reducedMotion: 'reduce',
    acceptDownloads: true,
  });
  const { origin } = new URL(url);
  const seen = { violations: [], foreign: [], errors: [], requests: [], dialogs: [] };
  await context.exposeFunction('__violated', (text) => seen.violations.push(text));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) =>
      window.__violated(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`),
    );
  });
  const page = await context.newPage();
  page.on('request', (request) => {
    const target = new URL(request.url());
    seen.requests.push(request.url());
    if (target.origin !== origin && target.protocol !== 'data:' && target.protocol !== 'blob:') seen.foreign.push(request.url());
  });
  page.on('pageerror', (error) => seen.errors.push(error.stack ?? String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error' && !expected?.test(message.text())) seen.errors.push(message.text());
  });
  page.on('dialog', (dialog) => {
    seen.dialogs.push(dialog.message());
    dialog.dismiss();
  });
  return {
    page,
    context,
    seen,
    /** Fails on what must never happen. */
    clean() {
      for (const [what, list] of Object.entries(seen)) {
        if (what !== 'requests') assert(list.length === 0, `${what}: ${list.slice(0, 3).join(' | ')}`);
      }
    },
    async close() {
      await context.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

let axeSource = null;

/** Fails on whatever axe finds against WCAG A and AA. */
export async function accessible(page) {
  axeSource ??= await readFile(AXE, 'utf8');
  await page.evaluate(axeSource);
  // From the top: a row that is half under the sticky header is no small target.
  await page.evaluate(() => scrollTo(0, 0));
  const violations = await page.evaluate(
    (tags) => window.axe.run(document, { runOnly: tags, resultTypes: ['violations'] }).then((result) => result.violations),
    WCAG,
  );
  const text = violations.flatMap(({ id, nodes }) => nodes.slice(0, 3).map((node) => `${id}: ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`));
  assert(violations.length === 0, text.join('\n'));
}

/** Keeps a screenshot in the directory that SCREENSHOTS names, if it does. */
export async function shoot(page, name, options = {}) {
  const dir = process.env.SCREENSHOTS;
  if (!dir) return;
  await mkdir(dir, { recursive: true });
  await page.screenshot({ path: join(dir, `${name}.png`), ...options });
}

/** The live indicator's word. */
export const connection = (page) => page.locator('.fresh [role=status]').textContent();

/** Waits for that word. */
export const becomes = (page, word, ms) => until(async () => (await connection(page)) === word, `the page says ${word}`, ms);

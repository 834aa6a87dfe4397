// The page in a real Chromium, against a running taskprof:
//
//   node test/page.mjs http://127.0.0.1:6060
//
// SCREENSHOTS=dir keeps pictures; CHROMIUM names another browser.

import { readFile } from 'node:fs/promises';
import { Tally, accessible, assert, becomes, equal, open, shoot, until } from './browser.mjs';

const url = (process.argv[2] ?? process.env.TASKPROF_URL ?? 'http://127.0.0.1:6060').replace(/\/$/, '');
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const VIEWS = [
  ['overview', 'What is wrong now'],
  ['tasks', 'Tasks by stack'],
  ['tasks?group=none', 'Tasks one by one'],
  ['streams', 'gRPC streams'],
  ['blocked', 'Workers'],
  ['timeline', 'In numbers'],
  ['compare', 'Compare two moments'],
];

const tally = new Tally();

const heading = (page, text) => page.locator('main h2', { hasText: text }).first().waitFor();
const settled = (page) => until(async () => (await page.locator('main .empty', { hasText: /^Loading|^Waiting/ }).count()) === 0, 'nothing loads any more');

async function visit(page, view, title) {
  await page.goto(`${url}/#/${view}`);
  await heading(page, title);
  await settled(page);
}

async function looks(scheme) {
  const browser = await open(url, { scheme });
  const { page } = browser;
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await tally.check(`${scheme}: opens and is live`, async () => {
    const response = await page.goto(`${url}/`);
    equal(response.headers()['content-security-policy'], POLICY, 'policy');
    await becomes(page, 'Live');
    const [red] = (await background()).match(/\d+/g).map(Number);
    assert(scheme === 'dark' ? red < 64 : red > 192, `background is ${red}`);
  });
  for (const [view, title] of VIEWS) {
    await tally.check(`${scheme}: ${view} shows, axe finds nothing`, async () => {
      await visit(page, view, title);
      await shoot(page, `${view.replace(/\W+/g, '-')}-${scheme}`);
      await accessible(page);
    });
  }
  for (const [view, noun] of [['tasks?group=none', 'Task'], ['streams', 'Stream']]) {
    await tally.check(`${scheme}: one ${noun.toLowerCase()} shows, axe finds nothing`, async () => {
      await page.goto(`${url}/#/${view}`);
      const row = page.locator('main tbody a[data-row]').first();
      await row.waitFor();
      await row.click();
      await heading(page, new RegExp(`^${noun} \\d+$`));
      await shoot(page, `one-${noun.toLowerCase()}-${scheme}`);
      await accessible(page);
    });
  }
  await tally.check(`${scheme}: 800 px wide, nothing sticks out`, async () => {
    await page.setViewportSize({ width: 800, height: 900 });
    for (const [view, title] of VIEWS) {
      await visit(page, view, title);
      const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      assert(scroll <= client, `${view} is ${scroll} px wide in ${client}`);
    }
    await page.goto(`${url}/#/overview`);
    await settled(page);
    await shoot(page, `narrow-${scheme}`);
  });
  await tally.check(`${scheme}: the theme button overrides the system`, async () => {
    await page.setViewportSize({ width: 1360, height: 900 });
    const before = await background();
    for (let presses = 0; presses < 2 && (await background()) === before; presses += 1) {
      await page.getByRole('button', { name: /^Theme/ }).click();
    }
    assert((await background()) !== before, 'the colours stay');
  });
  await tally.check(`${scheme}: no violation, no foreign request, no error`, async () => browser.clean());
  await browser.close();
}

async function works() {
  const browser = await open(url, { expected: /status of 400/ });
  const { page, context, seen } = browser;
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  const clipboard = () => page.evaluate(() => navigator.clipboard.readText());
  const focused = () => page.evaluate(() => document.activeElement.closest('[data-row]')?.dataset.row ?? null);
  await page.goto(`${url}/`);
  await becomes(page, 'Live');

  // What the demo has in it at all times, and a worker that blocks now and then.
  await tally.check('what is wrong comes first, with its lines', async () => {
    equal((await page.locator('main h2').first().textContent()).trim(), 'What is wrong now', 'the first heading');
    for (const [kind, says] of [
      ['DEADLOCK', /wait for each other.*locks\.rs:\d+/s],
      ['STALLED', /NeverRead.*bounds\.rs:\d+/s],
      ['LEAKED', /LeaveTaskBehind.*cancel\.rs:\d+/s],
      ['BLOCKED', /block_thread.*thread\.rs:\d+/s],
    ]) {
      await page.locator('main .finding').filter({ hasText: kind }).filter({ hasText: says }).first().waitFor({ timeout: 60_000 });
    }
  });

  await tally.check('a stuck stream says which side is stuck', async () => {
    await page.goto(`${url}/#/streams?filter=${encodeURIComponent('method:NeverRead')}`);
    await page.locator('main tbody').filter({ hasText: /handler not reading\s*· us/ }).first().waitFor({ timeout: 60_000 });
    await page.getByText(/of the client have come and our handler has not read them/).first().waitFor();
  });

  await tally.check('a worker that was blocked shows its stack', async () => {
    await page.goto(`${url}/#/blocked`);
    const episode = page.locator('main .episode').first();
    await episode.filter({ hasText: /thread\.rs:\d+/ }).waitFor({ timeout: 60_000 });
  });

  await tally.check('keys 1-6 change the view', async () => {
    for (const [index, name] of ['overview', 'tasks', 'streams', 'blocked', 'timeline', 'compare'].entries()) {
      await page.keyboard.press(String(index + 1));
      await page.locator('nav a[aria-current=page]', { hasText: new RegExp(`^\\s*${name}`, 'i') }).waitFor();
      assert((await page.evaluate(() => location.hash)).startsWith(`#/${name}`), 'the hash follows');
    }
  });

  await tally.check('/, j, k, Enter and Esc', async () => {
    await page.keyboard.press('2');
    await page.locator('main tbody a[data-row]').first().waitFor();
    await page.keyboard.press('/');
    equal(await page.evaluate(() => document.activeElement.id), 'filter', 'focus');
    await page.keyboard.press('Escape');
    await page.keyboard.press('j');
    const first = await focused();
    assert(first !== null, 'j focuses a row');
    await page.keyboard.press('j');
    await page.keyboard.press('k');
    equal(await focused(), first, 'j and k lead back');
    await page.keyboard.press('Enter');
    await until(() => page.evaluate(() => location.hash !== '#/tasks'), 'Enter opens the row');
    await heading(page, /^Task \d+$|^Tasks one by one$/);
    await page.keyboard.press('Escape');
    await until(() => page.evaluate(() => location.hash === '#/tasks'), 'Esc leads back');
  });

  await tally.check('? shows the keys, Esc hides them', async () => {
    await page.keyboard.press('?');
    await page.locator('dialog[open]').waitFor();
    await accessible(page);
    await page.keyboard.press('Escape');
    await until(async () => (await page.locator('dialog').count()) === 0, 'the help is gone');
  });

  await tally.check('y copies text, p a permalink', async () => {
    await page.keyboard.press('1');
    await heading(page, 'What is wrong now');
    await settled(page);
    await page.keyboard.press('y');
    const report = await until(clipboard, 'the clipboard is filled');
    assert(/pid \d+ boot \S+/.test(report) && report.includes('looked for'), report);
    await page.keyboard.press('p');
    await until(async () => (await clipboard()).startsWith(`${url}/#/`), 'the permalink is copied');
  });

  await tally.check('a filter goes to the server and into the hash', async () => {
    await page.goto(`${url}/#/tasks?group=none`);
    await page.locator('main tbody a[data-row]').first().waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('id:18446744073709551615');
    await page.getByText('No task fits this filter.').waitFor();
    assert((await page.evaluate(() => location.hash)).includes('filter=id'), 'the hash has it');
  });

  await tally.check('a wrong filter says what is expected', async () => {
    await page.goto(`${url}/#/tasks?filter=age%3Anonsense`);
    await page.locator('main .empty.crit').waitFor();
    const text = await page.locator('main .empty.crit').textContent();
    assert(text.includes('Expected:'), text);
  });

  await tally.check('lists and figures refresh by themselves', async () => {
    await page.goto(`${url}/#/tasks`);
    await settled(page);
    const before = seen.requests.length;
    await until(() => seen.requests.slice(before).some((one) => one.includes('/debug/tasks?')), 'tasks are asked for again', 15_000);
    await page.goto(`${url}/#/timeline`);
    await page.locator('figure path').first().waitFor({ state: 'attached' });
    const shape = () => page.locator('figure path').first().getAttribute('d');
    const drawn = await shape();
    await until(async () => (await shape()) !== drawn, 'the chart moves', 15_000);
  });

  await tally.check('Space pauses and goes on', async () => {
    await page.goto(`${url}/#/tasks`);
    await settled(page);
    await page.keyboard.press(' ');
    await becomes(page, 'Paused');
    const before = seen.requests.length;
    await page.waitForTimeout(3_000);
    equal(seen.requests.length, before, 'requests while paused');
    await page.keyboard.press(' ');
    await becomes(page, 'Live');
  });

  await tally.check('downloads a snapshot and a profile', async () => {
    const save = async (label) => {
      await page.locator('.menu summary').click();
      const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: label }).click()]);
      await page.locator('.menu summary').click();
      return readFile(await file.path());
    };
    const snapshot = JSON.parse(await save('Snapshot (JSON)'));
    equal(snapshot.schema, 1, 'schema');
    assert(snapshot.tasks.length > 0, 'tasks in the snapshot');
    const profile = await save('Tasks, pprof');
    assert(profile[0] === 0x1f && profile[1] === 0x8b, 'the profile is gzip');
    assert((await save('Tasks, text')).includes('goroutine '), 'text of all tasks');
  });

  await tally.check('compares two moments, one from a file', async () => {
    await page.goto(`${url}/#/compare`);
    await page.getByRole('button', { name: 'Keep this moment' }).click();
    await page.locator('.picks option').first().waitFor({ state: 'attached' });
    const snapshot = await (await context.request.get(`${url}/debug/snapshot`)).body();
    const [fewer, dropped] = (() => {
      const whole = JSON.parse(snapshot);
      const [first] = whole.tasks;
      const kept = whole.tasks.filter((task) => JSON.stringify(task.spawned_at) !== JSON.stringify(first.spawned_at));
      return [Buffer.from(JSON.stringify({ ...whole, tasks: kept })), whole.tasks.length - kept.length];
    })();
    assert(dropped > 0, 'the file lacks a group');
    await page.locator('input[type=file]').setInputFiles({ name: 'earlier.json', mimeType: 'application/json', buffer: fewer });
    await page.locator('.scroll[aria-label=Changes] tbody tr').first().waitFor();
    const text = await page.locator('main').textContent();
    assert(/gone|shrank/.test(text), 'the group that is missing is told');
    await page.getByRole('button', { name: 'Swap' }).click();
    await page.locator('td', { hasText: /^new$|^grew$/ }).first().waitFor();
    await accessible(page);
    await shoot(page, 'compare-two-light');
  });

  await tally.check('no violation, no foreign request, no error', async () => browser.clean());
  await browser.close();
}

async function rebinding() {
  const evil = new URL(url);
  evil.hostname = 'evil.test';
  const browser = await open(evil.href, { expected: /status of 421/ });
  await tally.check('a foreign Host is refused with 421 and no data', async () => {
    for (const path of ['/', '/debug/tasks']) {
      const response = await browser.page.goto(new URL(path, evil).href);
      equal(response.status(), 421, path);
      assert(!(await response.text()).includes('process'), 'no data');
    }
  });
  await browser.close();
}

await looks('light');
await looks('dark');
await works();
await rebinding();
tally.close();

// States of the page that a healthy process cannot be brought into at will,
// told by the fixture:
//
//   node test/states.mjs

import { Tally, accessible, assert, becomes, equal, open, shoot, until } from './browser.mjs';
import { HOSTILE, start } from './fixture.mjs';

const tally = new Tally();

/** One state: a fresh fixture and a fresh browser. */
async function state(name, prepare, body, { path = '/', expected = null } = {}) {
  await tally.check(name, async () => {
    const fixture = await start();
    prepare(fixture.world);
    const browser = await open(fixture.url, { expected });
    try {
      await browser.page.goto(`${fixture.url}${path}`);
      await body({ ...browser, ...fixture });
      await shoot(browser.page, `state-${name.replace(/\W+/g, '-')}`);
      await accessible(browser.page);
      browser.clean();
    } finally {
      await browser.close();
      fixture.stop();
    }
  });
}

const visible = (page, text) => page.getByText(text).first().waitFor();

await state('all clear says what was looked for', (world) => (world.mode = 'clear'), async ({ page }) => {
  await visible(page, 'Nothing found');
  await visible(page, 'not looked');
  await visible(page, 'tasks that wait on each other in a circle');
});

await state('not instrumented is not "no tasks"', (world) => (world.mode = 'unattached'), async ({ page }) => {
  await visible(page, 'Instrumentation is not attached');
  assert((await page.getByText('No task is alive').count()) === 0, 'it must not say that there are no tasks');
});

await state('partial coverage is said', () => {}, async ({ page }) => {
  await page.locator('.coverage summary').click();
  await visible(page, 'on a LocalSet, the root of a block_on');
}, { path: '/#/tasks' });

await state('401 asks for the token, a wrong one is told, the right one works', (world) => (world.token = 'a'.repeat(32)), async ({ page, seen, world }) => {
  await page.locator('dialog input[name=token]').fill('wrong');
  await page.keyboard.press('Enter');
  await visible(page, 'The server did not accept that token.');
  await shoot(page, 'state-sign-in');
  await accessible(page);
  await page.locator('dialog input[name=token]').fill(world.token);
  await page.keyboard.press('Enter');
  await becomes(page, 'Live');
  await page.locator('.finding').first().waitFor();
  await page.reload();
  await becomes(page, 'Live');
  assert(![...seen.requests, ...world.requests, page.url()].some((url) => url.includes(world.token)), 'the token is in no address');
}, { expected: /status of 401/ });

await state('429 waits as asked, then goes on', (world) => (world.limited = true), async ({ page, world }) => {
  await becomes(page, 'Asked to wait');
  world.limited = false;
  await becomes(page, 'Live');
}, { expected: /status of 429/ });

await state('a lost connection keeps the data, says so, and comes back', () => {}, async ({ page, world, drop }) => {
  await page.locator('.finding').first().waitFor();
  world.down = true;
  drop();
  await becomes(page, 'Disconnected');
  await visible(page, 'What is shown below is the last that was heard.');
  await accessible(page);
  await shoot(page, 'state-disconnected');
  assert((await page.locator('.finding').count()) > 0, 'the findings stay');
  const tried = world.requests.length;
  await page.getByRole('button', { name: 'Try now' }).click();
  await until(() => world.requests.length > tried, 'it tries again');
  world.down = false;
  await becomes(page, 'Live', 20_000);
}, { expected: /ERR_/ });

await state('silence makes it stale, with its age', () => {}, async ({ page, world }) => {
  await becomes(page, 'Live');
  world.silent = true;
  await becomes(page, 'Stale', 12_000);
  await visible(page, /nothing heard for [5-9]/);
});

await state('another process is noticed', () => {}, async ({ page, world }) => {
  await becomes(page, 'Live');
  Object.assign(world, { boot: 'another', pid: 4999 });
  await visible(page, 'This is a new process');
  await visible(page, 'pid 4121 is gone, pid 4999 answers');
});

await state('a hidden tab closes its stream', () => {}, async ({ page, streams }) => {
  await becomes(page, 'Live');
  equal(streams(), 1, 'open streams');
  const hide = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { value, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, hidden);
  await hide(true);
  await until(() => streams() === 0, 'the stream is closed');
  await hide(false);
  await becomes(page, 'Live');
  equal(streams(), 1, 'open streams');
});

await state('pages go on at the cursor', () => {}, async ({ page }) => {
  await visible(page, '200 of 255 groups');
  await page.getByRole('link', { name: 'Next page' }).click();
  await visible(page, '55 of 255 groups');
  await page.getByRole('link', { name: 'First page' }).click();
  await visible(page, '200 of 255 groups');
}, { path: '/#/tasks' });

await state('a group leads to its members, Esc back', () => {}, async ({ page }) => {
  await page.locator('main tbody a[data-row="g-watch"]').click();
  await visible(page, 'Tasks one by one');
  equal(await page.locator('#filter').inputValue(), 'group:g-watch', 'the filter');
  await page.keyboard.press('Escape');
  await visible(page, 'Tasks by stack');
}, { path: '/#/tasks' });

await state('a deadlock is drawn and leads to its tasks', () => {}, async ({ page }) => {
  const graph = page.locator('.graph').first();
  await graph.waitFor();
  const text = await graph.textContent();
  assert(text.includes('task 17') && text.includes('task 23') && text.includes('audit.rs:77') && text.includes('mutex lock'), text);
  equal(await graph.locator('path').count(), 2, 'arrows');
  await graph.locator('a').nth(1).click();
  await page.locator('main h2', { hasText: 'Task 23' }).waitFor();
});

await state('a task says what it waits for, who holds it, and what it holds', () => {}, async ({ page }) => {
  await visible(page, 'held by task');
  const text = (await page.locator('main').textContent()).replace(/\s+/g, ' ');
  for (const part of ['Waits for mutex lock 0x7f3a10', 'for 41s', '2 in its queue', 'held by task 23 journal', 'Holds 0x7f3a90 (mutex) accounts in ledger::post', 'Holds 0x7f3c20 (mpsc receiver), 4,096 messages in it, perhaps dropped jobs in ledger::post', 'Kept, but not polled', 'Queued for semaphore acquire', 'Awaited at the same time', 'due in 19s', 'Or one of', '9 frames of libraries']) {
    assert(text.includes(part), `${part} in ${text}`);
  }
  await page.getByRole('button', { name: '9 frames of libraries' }).click();
  await visible(page, 'Layer8::call');
  await page.getByRole('link', { name: 'who waits for it' }).first().click();
  equal(await page.locator('#filter').inputValue(), 'resource:"0x7f3a90"', 'the filter');
  await page.goBack();
  await page.getByRole('link', { name: '23' }).first().click();
  await page.locator('main h2', { hasText: 'Task 23' }).waitFor();
}, { path: '/#/tasks/17' });

await state('a task tells what holds its stream up', () => {}, async ({ page }) => {
  const row = page.locator('tr', { has: page.locator('a[data-row="812"]') });
  const text = (await row.textContent()).replace(/\s+/g, ' ');
  assert(text.includes('peer not reading') && text.includes('the peer'), text);
  await visible(page, 'the client does not read it');
}, { path: '/#/tasks/17' });

await state('groups tell the wait and its holder', () => {}, async ({ page }) => {
  const row = page.locator('tr', { has: page.locator('a[data-row="g-cycle"]') });
  const text = (await row.textContent()).replace(/\s+/g, ' ');
  assert(text.includes('mutex lock') && text.includes('0x7f3a10') && text.includes('held by 23'), text);
}, { path: '/#/tasks' });

await state('a stream is logged by a button', () => {}, async ({ page, world }) => {
  const button = page.getByRole('button', { name: 'Log Send and Recv' });
  await button.click();
  await visible(page, 'Each Send and Recv is logged');
  equal(await button.getAttribute('aria-pressed'), 'true', 'pressed');
  assert(world.requests.includes('/debug/log?stream=901&on=true'), 'it asked for it');
}, { path: '/#/streams/901' });

await state('a stream says which side is stuck, and shows its windows and events', () => {}, async ({ page }) => {
  const row = page.locator('tr', { has: page.locator('a[data-row="901"]') });
  const text = (await row.textContent()).replace(/\s+/g, ' ');
  assert(text.includes('peer not reading') && text.includes('the peer'), text);
  await visible(page, 'the client does not read it');
  equal(await page.locator('.win.crit').count(), 1, 'closed windows of connections');
  await visible(page, 'none for 5.0s');
  await page.getByRole('link', { name: '210 peer not reading' }).click();
  await page.waitForURL(/verdict%3Apeer_not_reading|verdict:peer_not_reading/);
  await page.goto(`${new URL(page.url()).origin}/#/streams/2001`);
  await visible(page, 'From here it could as well be peer frozen or network.');
  await page.locator('svg[aria-label^="Events"] rect').first().waitFor();
  equal(await page.locator('svg[aria-label^="Events"] rect').count(), 13, 'events drawn');
  await page.locator('td .tag', { hasText: 'window closed' }).first().waitFor();
}, { path: '/#/streams' });

await state('a task that is gone is said to be gone', () => {}, async ({ page }) => {
  await visible(page, 'Task 404 is not alive.');
}, { path: '/#/tasks/404', expected: /status of 404/ });

for (const view of ['overview', 'tasks', 'tasks?group=none', 'tasks/17', 'tasks/40', 'streams', 'streams/901', 'blocked']) {
  await state(`hostile names are text: ${view}`, (world) => (world.hostile = true), async ({ page }) => {
    await becomes(page, 'Live');
    await page.locator('main table tbody tr').first().waitFor();
    equal(await page.locator('main img, main script, main svg[onload], main a[href^="javascript:"]').count(), 0, 'elements made of names');
    const text = await page.locator('body').textContent();
    assert(text.includes(HOSTILE[0]), 'the name is shown as it is');
    assert(!/[\u202e\u2066\u2069\u200f\u0007\u0000\u001b]/.test(text), 'control and reordering characters are made visible');
    const [scroll, client] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert(scroll <= client, `a long name makes the page ${scroll} px wide`);
  }, { path: `/#/${view}` });
}

tally.close();

// Two moments: what grew, what is new, what is gone. They are kept in this
// page's memory, from the process or from snapshot files.

import { html, useState } from '/vendor/preact.js';
import { getJson } from '../api.js';
import { copy, heading } from '../copy.js';
import { clean, clock, count, plural } from '../format.js';
import { groupName, groupTasks, signature, statesText } from '../groups.js';
import { useCopier } from '../keys.js';
import { Empty, Method, Section, Table, Tag } from '../ui.js';
import { toast } from '../state.js';
import { OwnCode, States, WaitingFor } from './tasks.js';

const SHOWN = 200;
const HEAD = [
  ['Change', 'num'],
  ['Is'],
  ['Before', 'num'],
  ['After', 'num'],
  ['State'],
  ['Waiting for'],
  ['Your code'],
  ['Method'],
];

/** More groups than this are not compared; the moment says so. */
const MOST_GROUPS = 5_000;
const MOST_MOMENTS = 20;

const moments = [];
let serial = 0;

function keep(label, groups, partial) {
  const byKey = new Map();
  for (const group of groups) {
    const key = signature(group);
    const same = byKey.get(key);
    if (same) same.count += group.count;
    else byKey.set(key, { group, count: group.count });
  }
  serial += 1;
  const moment = { id: String(serial), label, byKey, partial };
  moments.push(moment);
  if (moments.length > MOST_MOMENTS) moments.shift();
  return moment;
}

/** Keeps what the process is in now. */
async function keepNow() {
  const groups = [];
  let cursor = '';
  let first = null;
  do {
    const page = await getJson('/debug/tasks', { params: { group: 'stack', limit: 1000, cursor } });
    first ??= page;
    groups.push(...page.groups);
    cursor = page.next_cursor;
  } while (cursor && groups.length < MOST_GROUPS);
  return keep(`${clock(first.taken_at)}, pid ${first.process.pid}`, groups, Boolean(cursor));
}

/** Opens a snapshot file, as `/debug/snapshot` gives it. */
async function keepFile(file) {
  let snapshot;
  try {
    snapshot = JSON.parse(await file.text());
  } catch {
    throw new Error(`${clean(file.name)} is not JSON.`);
  }
  if (snapshot?.schema !== 1 || !Array.isArray(snapshot.tasks) || !snapshot.process) {
    throw new Error(`${clean(file.name)} is not a snapshot of version 1, as Download gives it.`);
  }
  const label = `${clean(file.name)}, ${clock(snapshot.taken_at)}, pid ${snapshot.process.pid}`;
  return keep(label, groupTasks(snapshot.tasks), false);
}

/** Groups that differ, largest change first. */
function compare(before, after) {
  const rows = [];
  for (const key of new Set([...before.byKey.keys(), ...after.byKey.keys()])) {
    const was = before.byKey.get(key)?.count ?? 0;
    const is = after.byKey.get(key)?.count ?? 0;
    if (was === is) continue;
    const { group } = after.byKey.get(key) ?? before.byKey.get(key);
    rows.push({ key, group, was, is, change: is - was });
  }
  return rows.sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || b.change - a.change);
}

/** `[word, tone]`; more tasks are what one looks for, so they warn. */
function verdict({ was, is }) {
  if (was === 0) return ['new', 'crit'];
  if (is === 0) return ['gone', 'ok'];
  return is > was ? ['grew', 'warn'] : ['shrank', 'ok'];
}

const signed = (n) => (n > 0 ? `+${count(n)}` : `−${count(-n)}`);

function rowText(row) {
  return `${signed(row.change)} (${verdict(row)[0]}, ${count(row.was)} to ${count(row.is)}) [${statesText(row.group)}] ${groupName(row.group)}`;
}

function Pick({ label, value, onPick }) {
  return html`<label>${label}
    <select onChange=${(event) => onPick(event.currentTarget.value)}>
      ${moments.map((moment) => html`<option key=${moment.id} value=${moment.id} selected=${moment.id === value}>${moment.label}${moment.partial ? ' (largest groups only)' : ''}</option>`)}
    </select></label>`;
}

export function Compare() {
  const [picked, setPicked] = useState({ before: moments.at(-2)?.id ?? null, after: moments.at(-1)?.id ?? null });
  const [busy, setBusy] = useState(false);
  const find = (id) => moments.find((moment) => moment.id === id) ?? null;
  const before = find(picked.before);
  const after = find(picked.after);
  const rows = before && after && before !== after ? compare(before, after) : null;
  const summary = () => `${heading()}from ${before.label} to ${after.label}\n${rows.map(rowText).join('\n')}\n`;
  useCopier((row) => rows && (row === null ? summary() : rowText(rows.find((one) => one.key === row))));

  const add = async (keeping) => {
    setBusy(true);
    try {
      const moment = await keeping();
      setPicked(({ after: last }) => ({ before: find(last)?.id ?? moment.id, after: moment.id }));
    } catch (error) {
      toast(error.message);
    }
    setBusy(false);
  };
  const open = (event) => {
    const [file] = event.currentTarget.files;
    event.currentTarget.value = '';
    if (file) add(() => keepFile(file));
  };

  return html`<${Section} title="Compare two moments" note="kept in this page until it is closed"
    actions=${html`<button type="button" class="primary" disabled=${busy} onClick=${() => add(keepNow)}>Keep this moment</button>
      <label class="button file">Open a snapshot <input type="file" accept=".json,application/json" onChange=${open} /></label>
      <button type="button" disabled=${!rows} onClick=${() => copy(summary())}>Copy as text</button>`}>
    ${moments.length > 0 && html`<div class="picks">
      <${Pick} label="Before" value=${picked.before} onPick=${(id) => setPicked({ ...picked, before: id })} />
      <${Pick} label="After" value=${picked.after} onPick=${(id) => setPicked({ ...picked, after: id })} />
      <button type="button" onClick=${() => setPicked({ before: picked.after, after: picked.before })}>Swap</button>
    </div>`}
    ${rows === null && html`<${Empty} title=${moments.length === 0 ? 'Keep a moment, wait for the trouble to grow, keep another.' : 'Keep or open a second moment.'}>Groups of tasks are compared by the place in your code and the gRPC method.<//>`}
    ${rows?.length === 0 && html`<${Empty} title="No group has changed its size." />`}
    ${rows?.length > 0 && html`
      <${Table} label="Changes" head=${HEAD}>
        ${rows.slice(0, SHOWN).map((row) => {
          const [word, tone] = verdict(row);
          return html`<tr key=${row.key} tabindex="-1" data-row=${row.key}>
            <td class=${`num ${tone}`}><b>${signed(row.change)}</b></td>
            <td><${Tag} tone=${tone}>${word}<//></td>
            <td class="num">${count(row.was)}</td>
            <td class="num">${count(row.is)}</td>
            <td><${States} group=${row.group} /></td>
            <td><${WaitingFor} group=${row.group} /></td>
            <td><${OwnCode} name=${row.group.function} at=${row.group.place} /></td>
            <td><${Method} name=${row.group.method} /></td>
          </tr>`;
        })}
      <//>
      <p class="pager">${rows.length > SHOWN ? `${SHOWN} of ` : ''}${plural(rows.length, 'group')} changed</p>`}
  <//>`;
}

// Moments to compare: groups of tasks, kept in this page's memory.

import { getJson } from './api.js';
import { clean, clock } from './format.js';
import { groupTasks, signature } from './groups.js';

/** More groups than this are not compared; the moment says so. */
const MOST_GROUPS = 5_000;
const MOST_MOMENTS = 20;

export const moments = [];
let serial = 0;

function keep(label, process, takenAt, groups, partial) {
  const byKey = new Map();
  for (const group of groups) {
    const key = signature(group);
    const same = byKey.get(key);
    if (same) same.count += group.count;
    else byKey.set(key, { group, count: group.count });
  }
  serial += 1;
  const moment = { id: String(serial), label, process, takenAt, byKey, partial };
  moments.push(moment);
  if (moments.length > MOST_MOMENTS) moments.shift();
  return moment;
}

/** Keeps what the process is in now. */
export async function keepNow() {
  const groups = [];
  let cursor = '';
  let first = null;
  do {
    const page = await getJson('/debug/tasks', { params: { group: 'stack', limit: 1000, cursor } });
    first ??= page;
    groups.push(...page.groups);
    cursor = page.next_cursor;
  } while (cursor && groups.length < MOST_GROUPS);
  return keep(`${clock(first.taken_at)}, pid ${first.process.pid}`, first.process, first.taken_at, groups, Boolean(cursor));
}

/** Opens a snapshot file, as `/debug/snapshot` gives it. */
export async function keepFile(file) {
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
  return keep(label, snapshot.process, snapshot.taken_at, groupTasks(snapshot.tasks), false);
}

/** Groups that differ, largest change first. */
export function compare(before, after) {
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

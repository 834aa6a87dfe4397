// Groups of tasks: the same shape from the server and from a snapshot file.

import { clean, place } from './format.js';
import { waitText } from './words.js';

/** The innermost frame of the program's own code. */
export const userFrame = (stack) => stack?.frames.find((frame) => frame.kind === 'user') ?? null;

/** `{ name, at }`: the program's own code that a task or group is in. */
export function ownCode(item) {
  const frame = userFrame(item.stack);
  if (frame) return { name: clean(frame.function), at: place(frame.location) };
  return { name: null, at: place(item.spawned_at) };
}

/** What it waits in, or what it does instead. */
export function waitingIn(item) {
  if (item.wait) return waitText(item.wait.kind ?? item.wait);
  if (item.state === 'running') return '(in a poll)';
  if (item.state === 'scheduled') return '(first poll)';
  const inner = item.stack?.frames[0];
  return inner && inner.kind !== 'user' ? clean(inner.function) : null;
}

/** What makes two tasks alike: compared across moments and files. */
export function signature(item) {
  const { name, at } = ownCode(item);
  const frames = (item.stack?.frames ?? []).map((frame) => frame.function_full || frame.function);
  return JSON.stringify([item.state === 'running', name, at, item.method ?? null, waitingIn(item), frames]);
}

/** Groups the tasks of a whole snapshot. */
export function groupTasks(tasks) {
  const groups = new Map();
  for (const task of tasks) {
    const key = signature(task);
    const group = groups.get(key);
    if (group) {
      group.count += 1;
      group.oldest_ns = Math.max(group.oldest_ns, task.age_ns);
    } else {
      groups.set(key, { ...task, count: 1, oldest_ns: task.age_ns });
    }
  }
  return [...groups.values()];
}

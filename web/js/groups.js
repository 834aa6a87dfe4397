// Groups of tasks: the same shape from the server and from a snapshot file.

import { clean, place, plural } from './format.js';
import { TASK_STATE, waitText } from './words.js';

/** The innermost frame of the program's own code. */
export const userFrame = (stack) => stack?.frames.find((frame) => frame.kind === 'user') ?? null;

/** `{ name, location }`: the program's own code that a task is in. */
export function ownCode(task) {
  const frame = userFrame(task.stack);
  return frame?.location || frame?.function
    ? { name: frame.function, location: frame.location ?? task.spawned_at }
    : { name: null, location: task.spawned_at };
}

/** What a task or group waits for, as far as known. */
export const waitOf = ({ wait }) => {
  const kind = wait?.kind ?? wait ?? 'unknown';
  return kind === 'unknown' ? null : waitText(kind);
};

/** For how long; in its state, where its wait is not known. */
export const waited = ({ wait, state_ns }) => (wait && (wait.wait_ns > 0 || !wait.lower_bound) ? wait.wait_ns : state_ns);

/** The states of a group, most first: `[state, count]`. */
export const statesOf = (group) =>
  Object.entries(group.states)
    .filter(([, count]) => count > 0)
    .sort(([, a], [, b]) => b - a);

/** The same as one word, or as words with their counts. */
export function statesText(group) {
  const wait = waitOf(group);
  if (wait) return wait;
  const states = statesOf(group).map(([state, count]) => [TASK_STATE[state]?.[0] ?? state, count]);
  return states.length === 1 ? states[0][0] : states.map(([word, count]) => `${count} ${word}`).join(', ');
}

/** What makes two tasks alike to the server: place of own code, wait, and method. */
export const signature = (group) => JSON.stringify([group.function, place(group.place), group.wait, group.method]);

/** `function file:line method` of a group, on one line. */
export function groupName(group) {
  const where = place(group.place) ?? 'a place not known';
  const name = group.function ? `${clean(group.function)} ${where}` : `spawned at ${where}`;
  return group.method ? `${name} ${clean(group.method)}` : name;
}

/** Groups the tasks of a whole snapshot as the server would. */
export function groupTasks(tasks) {
  const groups = new Map();
  for (const task of tasks) {
    const { name, location } = ownCode(task);
    const group = { function: name, place: location, method: task.method, wait: task.wait?.kind ?? null, waiting_in: task.stack?.frames[0]?.function ?? null, states: {}, count: 0 };
    const key = signature(group);
    const same = groups.get(key) ?? group;
    same.count += 1;
    same.states[task.state] = (same.states[task.state] ?? 0) + 1;
    groups.set(key, same);
  }
  return [...groups.values()];
}

/** What else there is to say of a thing held, behind its name. */
export function holdNote({ kind, backlog, perhaps_dropped: perhapsDropped, dormant }) {
  return [
    ` (${kind.replaceAll('_', ' ')})`,
    backlog ? `, ${plural(backlog, 'message')} in it` : '',
    perhapsDropped ? ', perhaps dropped' : '',
    dormant ? ' in a future that it does not poll' : '',
  ].join('');
}

// Groups of tasks: the same shape from the server and from a snapshot file.

import { clean, place } from './format.js';
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

/** What a task waits in, or what it does instead. */
export function waitingIn(task) {
  if (task.wait) return waitText(task.wait.kind);
  return task.stack?.frames[0]?.function ?? null;
}

/** The states of a group, most first: `[state, count]`. */
export const statesOf = (group) =>
  Object.entries(group.states)
    .filter(([, count]) => count > 0)
    .sort(([, a], [, b]) => b - a);

/** The same as one word, or as words with their counts. */
export function statesText(group) {
  const states = statesOf(group).map(([state, count]) => [TASK_STATE[state]?.[0] ?? state, count]);
  return states.length === 1 ? states[0][0] : states.map(([word, count]) => `${count} ${word}`).join(', ');
}

/** What makes two tasks alike to the server: place of own code, and method. */
export const signature = (group) => JSON.stringify([group.function, place(group.place), group.method]);

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
    const group = { function: name, place: location, method: task.method, waiting_in: waitingIn(task), states: {}, count: 0 };
    const key = signature(group);
    const same = groups.get(key) ?? group;
    same.count += 1;
    same.states[task.state] = (same.states[task.state] ?? 0) + 1;
    groups.set(key, same);
  }
  return [...groups.values()];
}

// The same facts as plain text, for a chat, a ticket or a commit.

import { ago, bytes, clean, clock, count, duration, place, plural } from './format.js';
import { state, toast } from './state.js';
import { holdNote, waitOf, waited } from './groups.js';
import { HTTP2, KIND_OF_STREAM, PHASE, kindText, kindWord } from './words.js';

/** Copies text, also where the page has no secure context. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'offscreen';
    document.body.append(area);
    const focused = document.activeElement;
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    focused?.focus();
    if (!done) {
      toast('The browser does not allow copying here');
      return;
    }
  }
  toast(`Copied ${plural(text.trimEnd().split('\n').length, 'line')} as text`);
}

/** Of which process and when: the first line of everything copied. */
export function heading(takenAt) {
  const { process } = state;
  const who = process ? `${clean(process.name)} pid ${process.pid} boot ${process.boot_id}` : 'process';
  return `${who}, ${takenAt ?? new Date().toISOString()}\n`;
}

export function findingText(finding) {
  const lines = [
    `${kindWord(finding.kind)} (${finding.severity}, ${finding.confidence}) ${clean(finding.title)}`,
  ];
  if (finding.place) lines.push(`  at ${clean(finding.place)}`);
  if (finding.method) lines.push(`  in ${clean(finding.method)}`);
  lines.push(`  for ${duration(finding.since_ns)}, ${plural(finding.count, 'case')}`);
  for (const sentence of finding.evidence) lines.push(`  - ${clean(sentence)}`);
  if (finding.tasks.length > 0) lines.push(`  tasks ${finding.tasks.join(' ')}`);
  if (finding.streams.length > 0) lines.push(`  streams ${finding.streams.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

export function reportText(report) {
  if (!report) return heading();
  const body =
    report.findings.length > 0
      ? report.findings.map(findingText).join('\n')
      : `Nothing found at ${clock(report.taken_at)}.\n`;
  const checked = report.checked
    .map((check) =>
      check.unavailable
        ? `not looked for: ${kindText(check.kind)} (${clean(check.unavailable)})`
        : `looked for ${kindText(check.kind)} among ${count(check.examined)}`,
    )
    .join('\n');
  return `${heading(report.taken_at)}\n${body}\n${checked}\n`;
}

export function frameText(frame) {
  const where = place(frame.location);
  return `${clean(frame.function_full || frame.function)}${frame.inlined ? ' (inlined)' : ''}${where ? `\n        ${where}` : ''}`;
}

export function stackText(stack) {
  if (!stack) return '';
  const frames = stack.frames.map((frame) => `    ${frameText(frame)}\n`).join('');
  return stack.truncated ? `${frames}    … ${clean(stack.truncated)}\n` : frames;
}

export function taskText(task) {
  const { wait, branches = [], holds = [] } = task;
  const guard = (one) => `${one.local ? `: ${clean(one.local)}` : ''}${one.location ? ` at ${place(one.location)}` : ''}`;
  const lines = [`task ${task.id} [${waitOf(task) ?? task.state}, ${duration(waited(task))}]`];
  if (task.method) lines.push(`  ${clean(task.method)}${task.peer ? ` from ${clean(task.peer)}` : ''}`);
  if (wait?.resource) lines.push(`  waits for ${clean(wait.resource)}`);
  for (const holder of wait?.holders ?? []) lines.push(`  held by task ${holder.task}${guard(holder)}`);
  for (const held of holds) lines.push(`  holds ${clean(held.resource)}${holdNote(held)}${guard(held)}`);
  if (task.spawned_at) lines.push(`  spawned at ${place(task.spawned_at)}${task.parent ? ` by task ${task.parent}` : ''}`);
  lines.push(
    `  age ${duration(task.age_ns)}, ${plural(task.polls, 'poll')}, busy ${duration(task.busy_ns)}, longest poll ${duration(task.longest_poll_ns)}`,
  );
  const others = branches.map((branch) => `  ${branch.dormant ? 'kept but not polled' : 'also awaiting'} [${waitOf(branch) ?? 'unknown'}]:\n${stackText(branch.stack)}`);
  return `${lines.join('\n')}\n${stackText(task.stack)}${others.join('')}`;
}

export function streamText(stream) {
  const [phase] = PHASE[stream.phase] ?? [stream.phase];
  const lines = [
    `stream ${stream.id} ${clean(stream.method)} (${stream.side}, ${KIND_OF_STREAM[stream.kind] ?? stream.kind}) [${phase}, ${duration(stream.phase_ns)}]`,
    `  ${HTTP2[stream.state] ?? stream.state}, age ${duration(stream.age_ns)}${stream.peer ? `, peer ${clean(stream.peer)}` : ''}${stream.task ? `, task ${stream.task}` : ''}`,
    `  received ${plural(stream.received.messages, 'message')} ${bytes(stream.received.bytes)}, last ${ago(stream.received.last_ago_ns)}`,
    `  sent ${plural(stream.sent.messages, 'message')} ${bytes(stream.sent.bytes)}, last ${ago(stream.sent.last_ago_ns)}`,
  ];
  const { verdict } = stream;
  if (verdict) lines.splice(1, 0, `  ${verdict.kind} (${verdict.who}, ${verdict.confidence}) for ${duration(verdict.since_ns)}: ${clean(verdict.evidence)}`);
  if (stream.deadline) lines.push(`  deadline in ${duration(stream.deadline.remaining_ns)} of ${duration(stream.deadline.timeout_ns)}`);
  if (stream.status) lines.push(`  status ${stream.status.name} ${clean(stream.status.message)}`);
  return `${lines.join('\n')}\n`;
}

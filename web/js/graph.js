// Who waits for whom, drawn: tasks in a row, an arrow from each to the task
// that holds what it waits for, and one back along the bottom for a circle.

import { html } from '/vendor/preact.js';
import { clean, place } from './format.js';
import { link } from './route.js';
import { waitText } from './words.js';

const MOST = 6;
const BOX = 118;
const STEP = 290;
const MIDDLE = 30;

/** The end of a path is short enough for its place. */
const short = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);

function Label({ x, y, edge, anchor = 'middle' }) {
  return html`<text class="what" x=${x} y=${y} text-anchor=${anchor}>${waitText(edge.kind)}${edge.dormant ? ', not polled' : ''}</text>`;
}

export function WaitGraph({ edges }) {
  if (!edges?.length || edges.length > MOST) return null;
  const ids = [...new Set(edges.flatMap((edge) => [edge.waits, edge.holder]))];
  const left = (id) => 4 + ids.indexOf(id) * STEP;
  const back = edges.some((edge) => ids.indexOf(edge.holder) <= ids.indexOf(edge.waits));
  const [width, height] = [Math.max(240, left(ids.at(-1)) + BOX + 4), back ? 122 : 64];
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Who waits for whom"><svg class="graph" viewBox=${`0 0 ${width} ${height}`} width=${width} height=${height}>
    ${edges.map((edge) => {
      const [from, to] = [left(edge.waits), left(edge.holder)];
      if (to > from) {
        const [x, end] = [from + BOX, to - 2];
        return html`<path d=${`M${x} ${MIDDLE}H${end}m-8 -5l8 5l-8 5`} /><${Label} x=${(x + end) / 2} y=${MIDDLE - 7} edge=${edge} />`;
      }
      // Out of the bottom and back into it.
      const [x, end] = [from + BOX - 30, to + 30];
      return html`<path d=${`M${x} 54V84q0 12 -12 12H${end + 12}q-12 0 -12 -12V56m-5 8l5 -8l5 8`} />${
        from === to ? html`<${Label} x=${from} y="113" edge=${edge} anchor="start" />` : html`<${Label} x=${(x + end) / 2} y="113" edge=${edge} />`
      }`;
    })}
    ${ids.map((id) => {
      const at = edges.find((edge) => edge.waits === id)?.at ?? edges.find((edge) => edge.holder === id)?.held_at;
      return html`<a key=${id} href=${link('tasks', id)}><rect x=${left(id)} y="4" width=${BOX} height="50" rx="6" />
        <text x=${left(id) + BOX / 2} y="25" text-anchor="middle">task ${id}</text>
        <text class="at" x=${left(id) + BOX / 2} y="43" text-anchor="middle">${at ? short(clean(place(at)).replace(/^.*\//, ''), 19) : 'place not known'}</text></a>`;
    })}
  </svg></div>`;
}

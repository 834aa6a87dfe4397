// Pages of a list: the server's cursor, in the hash.

import { html } from '/vendor/preact.js';
import { count } from '../format.js';
import { link } from '../route.js';

/** Rows of one page. */
export const PAGE = 200;

export function Pager({ view, params, shown, total, next, noun }) {
  const first = !params.cursor;
  return html`<p class="pager">
    <span>${count(shown)}${total === undefined || total === null ? '' : ` of ${count(total)}`} ${noun}</span>
    ${!first && html`<a class="button" href=${link(view, null, { ...params, cursor: null })}>First page</a>`}
    ${next && html`<a class="button" href=${link(view, null, { ...params, cursor: next })}>Next page</a>`}
  </p>`;
}

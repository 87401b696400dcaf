// Small parts that several pages use, and how numbers are written.
import { html, useRef } from './vendor/preact.js';

export const count = (number) => number.toLocaleString('en');
export const percent = (fraction, digits = 2) => `${(100 * fraction).toFixed(digits)}%`;
export const fixed = (number, digits = 3) => (Number.isFinite(number) ? number.toFixed(digits) : '–');

export function Message({ error, text }) {
  return html`<main class="message" role=${error ? 'alert' : 'status'}><p>${error ?? text}</p></main>`;
}

export function Field({ title, children }) {
  return html`<section class="field"><h3>${title}</h3>${children}</section>`;
}

/** A small histogram; dragging on it chooses a range. The fields next to it serve keyboards. */
export function Histogram({ bins, low, high, onrange }) {
  const start = useRef();
  const most = Math.max(1, ...bins.counts);
  const n = bins.counts.length;
  const width = (bins.high - bins.low) / n;
  // At the ends nothing is cut off.
  const value = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const bin = Math.round(((event.clientX - box.left) / box.width) * n);
    return bin <= 0 ? -Infinity : bin >= n ? Infinity : Number((bins.low + bin * width).toPrecision(4));
  };
  const drag = (event) => {
    const [from, to] = [start.current, value(event)].sort((a, b) => a - b);
    if (from !== to) onrange(from, to);
  };
  return html`<svg class="histogram" viewBox=${`0 0 ${n} 24`} preserveAspectRatio="none" aria-hidden="true"
    onPointerDown=${(event) => {
      start.current = value(event);
      event.currentTarget.setPointerCapture(event.pointerId);
    }}
    onPointerMove=${(event) => event.buttons === 1 && drag(event)}
    onDblClick=${() => onrange(-Infinity, Infinity)}>
    ${Array.from(bins.counts, (number, at) => {
      const middle = bins.low + (at + 0.5) * width;
      const height = number === 0 ? 0 : Math.max(1, (24 * number) / most);
      return html`<rect x=${at + 0.08} width="0.84" y=${24 - height} height=${height}
        class=${middle >= low && middle <= high ? 'in' : 'out'} />`;
    })}
  </svg>`;
}

/** A table whose columns sort by a click on their heads. `columns`: title, value of a row for the order, and its cell. */
export function SortedTable({ label, columns, rows, sort, down, onsort }) {
  const at = Math.max(0, columns.findIndex(([key]) => key === sort));
  const by = columns[at][2];
  const ordered = [...rows].sort((a, b) => {
    const [x, y] = [by(a), by(b)];
    const order = typeof x === 'string' ? x.localeCompare(y) : (Number.isNaN(x) ? Infinity : x) - (Number.isNaN(y) ? Infinity : y);
    return down ? -order : order;
  });
  return html`<table aria-label=${label}>
    <thead><tr>${columns.map(
      ([key, title, , , kind], index) => html`<th class=${kind} aria-sort=${index === at ? (down ? 'descending' : 'ascending') : undefined}>
        <button onClick=${() => onsort(key, index === at ? !down : false)}>${title}<span aria-hidden="true">${
          index === at ? (down ? ' ↓' : ' ↑') : ''
        }</span></button></th>`,
    )}</tr></thead>
    <tbody>${ordered.map(
      (row) => html`<tr>${columns.map(([, , , cell, kind]) => html`<td class=${kind}>${cell(row)}</td>`)}</tr>`,
    )}</tbody>
  </table>`;
}
